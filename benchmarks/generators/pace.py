"""When requests of a steady rate are due. Pure."""


class Pace:
    """`rate_per_s` requests a second, evenly, from `start_s` on."""

    def __init__(self, rate_per_s: float, start_s: float) -> None:
        self._gap_s = 1 / rate_per_s
        self._start_s = start_s
        self._taken = 0

    def take(self, now_s: float) -> list[float]:
        """The scheduled instants up to `now_s` that were not taken before."""
        first = self._taken
        self._taken = max(first, int((now_s - self._start_s) / self._gap_s) + 1)
        return [self._start_s + number * self._gap_s for number in range(first, self._taken)]
