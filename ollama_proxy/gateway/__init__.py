"""Keep the keys of clients: their rights, their limits and their use."""
