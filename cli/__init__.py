"""The `usageflow` command: runs the whole stack, or one service, on this machine."""
