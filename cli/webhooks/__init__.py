"""`usageflow webhooks`: see endpoints and deliveries, send again, listen on a laptop."""
