"""From a history to a profile."""
