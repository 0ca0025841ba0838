"""Programs that use steerx-edge."""
