"""What a profile does to a model."""
