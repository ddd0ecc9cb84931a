"""The commands that look after the store, and after the team's cache."""
