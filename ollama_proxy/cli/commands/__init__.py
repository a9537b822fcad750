"""Define each command of the command line: its options, its work and its words."""
