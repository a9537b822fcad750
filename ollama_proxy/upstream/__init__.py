"""The HTTP/1.1 client to one instance."""
