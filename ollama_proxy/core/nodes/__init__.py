"""Decide on machines that report themselves to the hub. Pure."""
