"""Styles, script and icons: small files of our own, named by their content so that browsers keep
them for ever.
"""

import hashlib
from pathlib import Path
from typing import Final

from litestar import Response, get
from litestar.params import FromPath

from gateway.errors import not_found

BASE: Final = "/dashboard/assets"
_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_KEPT: Final = {"cache-control": "public, max-age=31536000, immutable"}


class _Assets:
    """The files, read once."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        self._names: dict[str, str] = {}
        for path in sorted(_FOLDER.iterdir()):
            if path.suffix in _TYPES:
                content = path.read_bytes()
                name = f"{path.stem}.{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}"
                self._files[name] = (content, _TYPES[path.suffix])
                self._names[path.name] = name

    def url(self, name: str) -> str:
        """Where a page finds the file that is called `name` in static/."""
        return f"{BASE}/{self._names[name]}"

    def file(self, name: str) -> tuple[bytes, str] | None:
        """Content and type of what is served as `name`."""
        return self._files.get(name)


_ASSETS: Final = _Assets()


def url(name: str) -> str:
    """Where a page finds the file that is called `name` in static/."""
    return _ASSETS.url(name)


@get(f"{BASE}/{{name:str}}", include_in_schema=False)
async def get_asset(name: FromPath[str]) -> Response[bytes]:
    """A file, to be kept for a year."""
    found = _ASSETS.file(name)
    if found is None:
        raise not_found()
    content, media_type = found
    return Response(content, media_type=media_type, headers=_KEPT)


HANDLERS = [get_asset]
