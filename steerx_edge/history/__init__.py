"""What a person has written: items, readers for them, and which belong to a request."""
