"""Holds what is counted against what ingest accepted, hour by hour, and repairs what differs."""
