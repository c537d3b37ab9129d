"""The shared runtime of every service and of the gateway; see README.md here."""
