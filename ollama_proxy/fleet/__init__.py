"""Instances: they are wished for, come, serve and go."""
