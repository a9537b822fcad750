"""Run instances in Exoscale's cloud: created on demand, deleted when idle."""
