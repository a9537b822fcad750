"""Serve the routes of the hub to nodes and their owners."""
