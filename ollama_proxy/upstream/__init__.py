"""Speak HTTP/1.1 to one instance."""
