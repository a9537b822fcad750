"""The store that is one SQLite file in the state folder."""
