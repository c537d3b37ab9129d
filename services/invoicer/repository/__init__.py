"""All SQL of invoicer, by what it is about. Each function works inside the caller's transaction."""
