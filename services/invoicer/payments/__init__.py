"""How invoices are paid: attempts, providers that make them, and when they are made again."""
