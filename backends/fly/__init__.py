"""Fly Machines: one small machine of one app, with its models on a volume."""
