"""Hold decisions and data, pure: no sockets, no clock, no event loop."""
