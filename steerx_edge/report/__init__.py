"""What an evaluation found, for people: tables for a terminal, and a page."""
