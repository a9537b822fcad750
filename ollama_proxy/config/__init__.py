"""Settings: read once, checked, and told in words."""
