"""What outlives the process: one folder, one SQLite file."""
