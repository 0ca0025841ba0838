"""Views of an evaluation: tables for the terminal, and an HTML page."""
