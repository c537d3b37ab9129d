"""Raw usage events: an event that was acknowledged is stored once, forever findable."""
