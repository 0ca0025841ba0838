"""Views of evaluations, profiles, texts and answers: for the terminal, and as HTML pages."""
