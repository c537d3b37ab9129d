"""Exact usage for any customer, metric and window; see README.md here."""
