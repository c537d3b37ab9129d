"""The customer portal: what is one customer's, for whoever has a link to it."""
