"""Speak HTTP to clients."""
