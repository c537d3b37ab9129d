"""`usageflow import`: a file of events through the public HTTP API, each billed once."""
