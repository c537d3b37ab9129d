"""Bounds of what a caller may choose."""

from typing import Final

# The gateway takes no more in a request.
BATCH_LINES_MAX: Final = 10_000
# The gateway holds 8 such requests at a time, of all callers.
IN_FLIGHT_MAX: Final = 8
