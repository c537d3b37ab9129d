"""Import it before nats-py, so that it leaves aiohttp out, which its WebSocket transport needs.

9 MB of memory and 0.1 s of processor time for each process.
"""

import sys

_NAME = "aiohttp"

if _NAME not in sys.modules and "nats" not in sys.modules:
    # None makes an import fail; nats-py then does without.
    sys.modules[_NAME] = None  # type: ignore[assignment]
    try:
        import nats  # noqa: F401
    finally:
        del sys.modules[_NAME]
