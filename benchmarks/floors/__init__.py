"""What this machine could do at best: the servers and writers that rows are compared with."""
