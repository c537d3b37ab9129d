"""Who issues invoices: what an organization wants to stand on them. Pure."""

import base64
from dataclasses import dataclass

from services.kit.errors import FieldChecks

NAME_CHARS_MAX = 200
ADDRESS_CHARS_MAX = 1_000
TEXT_CHARS_MAX = 200
FOOTER_CHARS_MAX = 1_000
LOGO_BYTES_MAX = 128 * 1024
VERSIONS_MAX = 1_000
# What files of these kinds begin with.
_LOGOS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}


@dataclass(frozen=True, slots=True)
class Issuer:
    """Name, address (lines), tax id, e-mail address, a footer, and a logo; all may be empty."""

    name: str = ""
    address: str = ""
    tax_id: str = ""
    email: str = ""
    footer: str = ""
    logo: bytes = b""

    @property
    def logo_type(self) -> str:
        """The kind of the logo's file; "" when there is none."""
        kinds = (kind for kind, start in _LOGOS.items() if self.logo.startswith(start))
        return next(kinds, "") if self.logo else ""

    @property
    def logo_url(self) -> str:
        """The logo as a URL that holds it."""
        return f"data:{self.logo_type};base64,{base64.b64encode(self.logo).decode()}"


NO_ISSUER = Issuer()


def check_issuer(issuer: Issuer) -> None:
    """InvalidArgumentError names all that is wrong."""
    checks = FieldChecks()
    for field, text, chars_max, lines in (
        ("name", issuer.name, NAME_CHARS_MAX, False),
        ("address", issuer.address, ADDRESS_CHARS_MAX, True),
        ("taxId", issuer.tax_id, TEXT_CHARS_MAX, False),
        ("email", issuer.email, TEXT_CHARS_MAX, False),
        ("footer", issuer.footer, FOOTER_CHARS_MAX, True),
    ):
        allowed = text.replace("\n", "") if lines else text
        fits = len(text) <= chars_max and all(char.isprintable() for char in allowed)
        breaks = " but line breaks" if lines else ""
        message = f"must have at most {chars_max:,} characters and no control characters{breaks}"
        checks.require(fits, field, message)
    known = not issuer.logo or bool(issuer.logo_type)
    message = f"must be a PNG or JPEG of at most {LOGO_BYTES_MAX // 1024} KiB"
    checks.require(known and len(issuer.logo) <= LOGO_BYTES_MAX, "logo", message)
    checks.done()
