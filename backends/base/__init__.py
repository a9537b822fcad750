"""Share what all clouds have in common: a backend over a small protocol, in parts."""
