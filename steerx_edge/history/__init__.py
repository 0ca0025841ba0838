"""The user's texts: items, their readers, and retrieval."""
