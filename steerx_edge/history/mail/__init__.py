"""Mail: what is the same for all programs that keep it."""
