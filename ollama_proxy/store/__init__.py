"""Keep what outlives the process: ports, and the stores that have them."""
