"""The right amount, billed once, never changed afterwards; see README.md here."""
