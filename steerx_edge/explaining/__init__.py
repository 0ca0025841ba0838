"""What a profile was learned from, and what it does to an answer, token by token."""
