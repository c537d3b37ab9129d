"""How fast, how soon, how large: `make bench`."""
