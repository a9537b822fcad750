"""One request, from the decision to its last byte; knows no server."""
