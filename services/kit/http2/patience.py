"""How much of what brings nothing a client may send."""

from typing import Final

from services.kit.http2.frames import ConnectionFailure, ErrorCode

# Of a server, in all.
CALLS_RUNNING_MAX: Final = 2_000
# Of these, of gRPC's own services (health, reflection) with a stream of answers: nobody needs a
# key for them, and they may last for ever.
WATCHES_MAX: Final = 200
# As many as may run at once, for they may all be given up at once.
RESETS_PER_S_MAX: Final = CALLS_RUNNING_MAX
# Frames that bring no call on. Each call that begins and each message that is sent allows for more,
# and so do many bytes: who takes them gives back windows, HAProxy up to four times for a frame. Who
# takes a few bytes at a time is allowed nothing for that.
IDLE_FRAMES_PER_S_MAX: Final = 10_000
IDLE_FRAMES_PER_CALL: Final = 10
IDLE_FRAMES_PER_MESSAGE: Final = 10
SENT_BYTES_PER_IDLE_FRAME: Final = 1_024
# SETTINGS may mean work for each stream.
SETTINGS_AS_IDLE_FRAMES: Final = 100


class Patience:
    """Counts what one connection sends within a second, and ends it with ENHANCE_YOUR_CALM."""

    def __init__(self) -> None:
        self._second_s = 0.0
        self._resets = 0
        self._idle_frames = 0
        self._first_stream = 0
        self._allowed = 0

    def sent(self, size: int, *, whole: bool) -> None:
        """Of a message so many bytes, `whole` if they are its last."""
        self._allowed += size // SENT_BYTES_PER_IDLE_FRAME
        if whole:
            self._allowed += IDLE_FRAMES_PER_MESSAGE

    def idle(self, now_s: float, last_stream: int, count: int = 1) -> None:
        """Frames that bring no call on. ConnectionFailure."""
        self._look_at_clock(now_s, last_stream)
        self._idle_frames += count
        # A client's streams have every other number.
        begun = (last_stream - self._first_stream) // 2
        allowed = self._allowed + begun * IDLE_FRAMES_PER_CALL
        if self._idle_frames > IDLE_FRAMES_PER_S_MAX + allowed:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many frames for nothing")

    def reset(self, now_s: float, last_stream: int) -> None:
        """A stream that ended otherwise than by its answer. ConnectionFailure."""
        self._look_at_clock(now_s, last_stream)
        self._resets += 1
        if self._resets > RESETS_PER_S_MAX:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many streams reset")

    def _look_at_clock(self, now_s: float, last_stream: int) -> None:
        if now_s - self._second_s >= 1.0:
            self._second_s = now_s
            self._resets = self._idle_frames = self._allowed = 0
            self._first_stream = last_stream
