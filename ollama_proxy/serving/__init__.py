"""Serve one request, from the decision to its last byte; know no server."""
