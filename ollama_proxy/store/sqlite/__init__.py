"""Keep the state in one SQLite file in the state folder."""
