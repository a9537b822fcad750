"""Plain requests, served straight from their connection."""
