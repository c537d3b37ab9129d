"""UsageFlow's services; each is a process with a database of its own."""
