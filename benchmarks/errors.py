"""What can go wrong in a benchmark, in sentences for people."""


class BenchmarkError(Exception):
    """A figure can't be had, or would be worth nothing: the message says why."""
