"""How one instance lives: its record, what happens to it, what is done about it."""
