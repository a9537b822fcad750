"""Treat HTTP as data: headers, chunks, heads."""
