"""What the resources look like in JSON, and how that maps to the services' messages."""
