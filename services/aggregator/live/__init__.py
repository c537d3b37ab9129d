"""Usage as it changes, for those who watch it."""
