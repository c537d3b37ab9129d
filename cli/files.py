"""Files that only their owner may read, replaced in one step."""

import json
import os
from pathlib import Path
from typing import Any


def private_directory(path: Path) -> Path:
    """Make a directory (with its parents) that only its owner may enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a file of mode 0600 so that readers see the old text or the new, never a part.

    With `durable` it is on disk before this returns.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """write_private() of a JSON document."""
    write_private(path, json.dumps(value, indent=2) + "\n", durable=durable)


def read_json(path: Path) -> Any:
    """A JSON document that can be made again: an empty dict when it is missing or torn."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
