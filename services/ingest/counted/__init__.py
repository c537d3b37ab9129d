"""Which stored events were in a figure that was told at some time, at any time later."""
