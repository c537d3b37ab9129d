"""Import it before all else in a process: libraries then leave out what no service needs of them.

structlog would import rich for tracebacks in colour, nats-py aiohttp for WebSockets: 12 MB
of memory and 0.2 s of processor time for each process, where these are installed.
"""

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


for _library, _optional in _OPTIONAL.items():
    _import_without(_library, _optional)
