"""Unknown names, with the known one that was probably meant."""

import difflib
from collections.abc import Collection

NAME_CHARS_MAX = 64


def unknown(name: str, known: Collection[str], kind: str = "field") -> str:
    """For example: 'unknown field; did you mean "customerId"?'"""
    meant = _meant(name[:NAME_CHARS_MAX], known)
    if meant is None:
        return f"unknown {kind}; known: {', '.join(sorted(known)) or 'none'}"
    return f'unknown {kind}; did you mean "{meant}"?'


def _meant(name: str, known: Collection[str]) -> str | None:
    def plain(text: str) -> str:
        return text.replace("_", "").replace("-", "").lower()

    by_plain = {plain(candidate): candidate for candidate in known}
    if match := by_plain.get(plain(name)):
        return match
    close = difflib.get_close_matches(plain(name), list(by_plain), n=1)
    return by_plain[close[0]] if close else None
