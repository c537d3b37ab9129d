"""Load generators, each a process of its own so that none shares an interpreter."""
