"""What aggregated usage is held against: what was accepted, counted where it is stored."""
