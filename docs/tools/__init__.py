"""Programs that make pages of the documentation, and read commands out of them."""
