"""What an audit prints."""

from collections.abc import Mapping
from fractions import Fraction

from rich.console import Console
from rich.table import Table

from cli.auditing.audit import Outcome


def report(outcomes: Mapping[str, Outcome], console: Console) -> None:
    """A table of the differences, and what was counted."""
    if any(outcome.differences for outcome in outcomes.values()):
        table = Table("mode", "metric", "aggregation", "window", "start", "of")
        for name in ("usage says", "events say"):
            table.add_column(name, justify="right", overflow="fold")
        for mode, outcome in outcomes.items():
            for each in outcome.differences:
                table.add_row(
                    mode,
                    each.metric.key,
                    each.metric.aggregation,
                    each.window,
                    f"{each.start:%Y-%m-%d %H:%M}",
                    each.customer_id or "(none)",
                    _text(each.told),
                    _text(each.counted),
                )
        console.print(table)
    for mode, outcome in outcomes.items():
        line = (
            f"{mode}: {outcome.metrics} metrics, {outcome.events} events, "
            f"{outcome.figures} figures, {outcome.difference_count} differences"
        )
        if outcome.undecided:
            line += f", {outcome.undecided} undecided: their usage keeps changing, try again"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _text(figure: Fraction | None) -> str:
    """Plain digits: what is counted here has at most 12 after the point."""
    if figure is None:
        return "nothing"
    whole, rest = divmod(figure, 1)
    scaled = rest * 10**12
    if scaled.denominator != 1:
        return str(figure)
    digits = f"{scaled.numerator:012d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
