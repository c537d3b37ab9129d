"""Where events go, and with which API key. A key is never an argument: those can be seen by all."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cli.connection import read_connection
from cli.importing.errors import ImportStoppedError

API_KEY_VARIABLE: Final = "USAGEFLOW_API_KEY"
KEY_FILE_CHARS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway and a key for it. `is_here`: on this machine. `compress`: bodies are gzipped."""

    url: str
    api_key: str
    is_here: bool
    compress: bool


def find_target(
    url: str | None,
    api_key_file: Path | None,
    home: Path,
    environ: Mapping[str, str],
    compress: bool | None,
) -> Target:
    """The URL that was given, or that of the stack running in `home`.

    The key is that of the file, or of the environment, or (for the stack in `home` only) its own.
    `compress` None: when it is not on this machine. ImportStoppedError when something is missing.
    """
    api_key = _read_key(api_key_file) if api_key_file else environ.get(API_KEY_VARIABLE, "").strip()
    if url is None:
        connection = read_connection(home / "connection.json")
        if connection is None:
            raise ImportStoppedError(f"no stack runs in {home}: start one, or give its --url")
        url, api_key = connection.http, api_key or connection.api_key
    if not api_key:
        raise ImportStoppedError(f"no API key: set {API_KEY_VARIABLE}, or give --api-key-file")
    if not (api_key.isascii() and api_key.isprintable()):
        raise ImportStoppedError("the API key has characters that no API key has")
    is_here = _is_here(url)
    return Target(url, api_key, is_here, not is_here if compress is None else compress)


def _read_key(path: Path) -> str:
    try:
        with path.open() as file:
            return file.read(KEY_FILE_CHARS_MAX).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImportStoppedError(f"the API key can't be read: {error}") from error


def _is_here(url: str) -> bool:
    """Whether it is an address of this machine; ImportStoppedError when it is no URL."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise ImportStoppedError(f"{url}: must be a URL such as https://usage.example.com")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
