"""Import it before all else in a process: it starts with less memory and processor time.

Libraries leave out what no service needs of them: structlog would import rich for tracebacks in
colour, nats-py aiohttp for WebSockets: 12 MB of memory and 0.2 s of processor time for each
process, where these are installed.

Python looks for cycles from Runtime.wait() on. Nearly all that is made until then stays: looking
took a tenth of a start's time and found some 700 objects.
"""

import gc
import importlib
import sys
from types import ModuleType

# Library -> what it takes when it finds it.
_OPTIONAL = {"structlog": "rich", "nats": "aiohttp"}


def _import_without(library: str, optional: str) -> None:
    if library in sys.modules or optional in sys.modules:
        return
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules[optional] = None  # makes an import fail; the library then does without
    try:
        importlib.import_module(library)
    finally:
        del modules[optional]


gc.disable()
for _library, _optional in _OPTIONAL.items():
    _import_without(_library, _optional)
