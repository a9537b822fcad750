"""Read the settings once, check them, and describe them in words."""
