"""Instances in Exoscale's cloud: created when asked, deleted when idle."""
