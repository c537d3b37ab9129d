"""Typesets one invoice: JSON on standard input, a PDF on standard output.

A process of its own (`python -m services.invoicer.rendering.typeset`): typesetting takes memory
and processor time that a service must not be short of, and can be ended when it takes too long.
"""

import importlib.resources
import sys

import typst

# Bengali; Latin, Greek, Cyrillic, Vietnamese, Devanagari; the scripts that the names tell; Chinese,
# Japanese, Korean. The template has them in the order in which they are tried.
FONTS = (
    "fontpkg_hind_siliguri",
    "fontpkg_noto_sans",
    "fontpkg_noto_sans_arabic",
    "fontpkg_noto_sans_khmer",
    "fontpkg_noto_sans_tamil",
    "fontpkg_noto_sans_telugu",
    "fontpkg_noto_sans_thai",
    "cvttf_NotoSansCJK_Regular",
)


def main() -> None:
    """Do it."""
    fonts = typst.Fonts(
        include_system_fonts=False,
        font_paths=[str(importlib.resources.files(package)) for package in FONTS],
    )
    template = importlib.resources.files("services.invoicer.rendering") / "invoice.typ"
    pdf = typst.compile(
        template.read_bytes(),
        font_paths=fonts,
        sys_inputs={"data": sys.stdin.buffer.read().decode()},
    )
    assert isinstance(pdf, bytes)
    sys.stdout.buffer.write(pdf)


if __name__ == "__main__":
    main()
