"""Decide by `Origin` and `Host` which requests are allowed."""
