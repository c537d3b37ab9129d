"""Typesets one invoice: JSON on standard input, a PDF on standard output.

A process of its own (`python -m services.invoicer.rendering.typeset`): typesetting takes memory
and processor time that a service must not be short of, and can be ended when it takes too long.
"""

import importlib.resources
import sys

import typst

# Latin, Greek, Cyrillic, Vietnamese; Arabic; Chinese, Japanese, Korean.
FONTS = ("fontpkg_noto_sans", "fontpkg_noto_sans_arabic", "cvttf_NotoSansCJK_Regular")


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
