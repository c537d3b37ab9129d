"""An invoice as HTML: one page without scripts that needs nothing else. Pure."""

from collections.abc import Iterable
from html import escape

from services.invoicer.rendering.view import View, ViewLine

_STYLE = """
body{font:15px/1.5 system-ui,"Noto Sans",sans-serif;color:#1c2430;background:#fff;margin:0}
main{max-width:52rem;margin:2rem auto;padding:0 1.5rem}
header{display:flex;justify-content:space-between;gap:2rem;align-items:flex-start}
h1{font-size:1.6rem;margin:1.5rem 0 .5rem}
.issuer,.recipient{white-space:pre-line;overflow-wrap:anywhere}
.issuer{text-align:right;color:#55606e;min-width:0}.logo{max-height:4.5rem;max-width:14rem}
.status{border:1px solid currentColor;border-radius:1rem;padding:.1rem .7rem;font-size:.85rem}
.status{white-space:nowrap}
dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem 1rem;margin:1rem 0}
dt{color:#55606e}dd{margin:0;overflow-wrap:anywhere}
table{width:100%;border-collapse:collapse;margin-top:1.5rem}
th,td{text-align:left;vertical-align:top;padding:.45rem .3rem;border-bottom:1px solid #dfe4ea}
.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.more{color:#55606e;font-size:.85rem}details{color:#55606e;font-size:.85rem}
tfoot td{border:0}tfoot td:first-child{white-space:normal;overflow-wrap:anywhere}
tfoot tr:last-child td{font-weight:700;border-top:2px solid #1c2430}
@media(max-width:40rem){body{font-size:13px}main{padding:0 .75rem}th.number{white-space:normal}
.more,details{font-size:.75rem}td:first-child{overflow-wrap:anywhere}}
footer{margin:2rem 0;color:#55606e;font-size:.8rem;white-space:pre-line;overflow-wrap:anywhere}
@media print{main{margin:0;max-width:none}details{display:none}}
"""


def html_of(view: View) -> str:
    """The page."""
    issuer = view.issuer
    logo = f'<img class="logo" src="{issuer.logo_url}" alt="">' if issuer.logo else ""
    texts = (issuer.name, issuer.address, issuer.tax_id, issuer.email)
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in view.facts)
    head = f'<p class="recipient">{_text(view.recipient)}</p>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(view.title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<header><div>{logo}</div><div class="issuer">{_text(texts)}</div></header>'
        f'<h1>{escape(view.title)} <span class="status">{escape(view.status)}</span></h1>'
        f"{head}<dl>{facts}</dl>{_table(view)}"
        f"<footer>{_text((issuer.footer,))}\n{_proof(view)}</footer></main></body></html>"
    )


def _table(view: View) -> str:
    heads = ("Description", "Quantity", "Unit price", f"Amount ({view.currency})")
    head = "".join(
        f'<th scope="col"{_CLASS if number else ""}>{escape(text)}</th>'
        for number, text in enumerate(heads)
    )
    sums = "".join(
        f'<tr><td colspan="3"{_CLASS}>{escape(label)}</td><td{_CLASS}>{escape(amount)}</td></tr>'
        for label, amount in view.sums
    )
    rows = "".join(_row(line) for line in view.lines)
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody><tfoot>{sums}</tfoot></table>"
    )


_CLASS = ' class="number"'


def _row(line: ViewLine) -> str:
    period = f'<div class="more">{escape(line.period)}</div>' if line.period else ""
    steps = "".join(f"<div>{escape(step)}</div>" for step in line.steps)
    cells = "".join(
        f"<td{_CLASS}>{escape(text)}</td>" for text in (line.quantity, line.unit_price, line.amount)
    )
    how = f"<details><summary>How it came about</summary>{steps}</details>" if steps else ""
    return f"<tr><td>{escape(line.description)}{period}{how}</td>{cells}</tr>"


def _proof(view: View) -> str:
    return f"Hash: {escape(view.hash)}" if view.hash else ""


def _text(lines: Iterable[str]) -> str:
    return escape("\n".join(line for line in lines if line))
