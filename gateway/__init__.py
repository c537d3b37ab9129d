"""The HTTP side of UsageFlow: authenticates, limits, coalesces, translates to gRPC."""
