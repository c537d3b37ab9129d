"""Bills that were worked out by hand, with the arithmetic written out beside each."""
