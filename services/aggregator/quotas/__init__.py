"""Limits on usage: what a customer may still use, and units set aside before they are used."""
