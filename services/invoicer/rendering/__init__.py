"""Invoices for people: HTML and PDF of what is stored, as it was when it was finalized."""
