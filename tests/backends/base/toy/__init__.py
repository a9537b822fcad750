"""A cloud that there is none of, and the backend that its author would write."""
