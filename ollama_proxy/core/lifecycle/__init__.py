"""Decide how one instance lives: its record, its events and the commands for it."""
