"""Serve plain requests straight from their connection."""
