"""Builds a metric anew when its definition changes, from all that was stored of it."""
