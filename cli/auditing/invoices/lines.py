"""What each line has to say, worked out from the plan and the raw events."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction

from cli.auditing.invoices.books import Books, Row, amount_of, time_of
from cli.auditing.invoices.chain import Problem
from cli.auditing.invoices.figures import UsageCount
from cli.auditing.invoices.money import fraction, rounded, total
from cli.auditing.invoices.parts import BillingParts
from cli.auditing.invoices.prices import Used, part_of, price_of
from cli.auditing.invoices.seconds import stays
from cli.auditing.invoices.sums import compare, plain
from cli.auditing.parts import Metric

ZERO = Fraction(0)
# How long before an invoice's period earlier ones may have ended to be looked at again.
LATE = timedelta(days=400)


class Lines:
    """Works out the lines of invoices of one organization and mode."""

    def __init__(self, parts: BillingParts, books: Books, metrics: Mapping[str, Metric]) -> None:
        self._parts = parts
        self._books = books
        self._metrics = metrics
        self.events = 0
        # Lines of old invoices, whose exact events nobody knows, that differ.
        self.undecided = 0
        # Those whose events may have been dropped, that differ.
        self.dropped = 0

    async def check(self, invoice: Row) -> AsyncIterator[Problem]:
        """What is wrong with its lines."""
        for line in invoice["lines"]:
            if line["kind"] in ("USAGE", "LATE_USAGE"):
                async for problem in self._usage(invoice, line):
                    yield problem
            else:
                for problem in self._other(invoice, line):
                    yield problem
        for problem in self._missing(invoice):
            yield problem

    async def _usage(self, invoice: Row, line: Row) -> AsyncIterator[Problem]:
        start, end = time_of(line["period_start"]), time_of(line["period_end"])
        billed = [
            each
            for each in self._books.before(invoice)
            if each.kind in ("USAGE", "LATE_USAGE")
            and (each.metric, each.start, each.end) == (line["metric"], start, end)
        ]
        phase = self._books.phase(invoice, start)
        plan = self._books.plan_of(phase)
        price = next((each for each in plan["prices"] if each["metric"] == line["metric"]), None)
        number = int(line["position"])
        if price is None:
            yield Problem(invoice["number"], number, "metric", line["metric"], "none of the plan's")
            return
        used, dropped = await self._used(invoice, line, price)
        included = fraction(price["included_units"])
        before = total(each.quantity for each in billed)
        window = self._books.window(invoice, start, end)
        stay = stays(self._books, invoice, (start, end), window)[0]
        amount = price_of(
            price,
            used,
            invoice["currency"],
            self._books.percents(invoice, phase, start),
            stay.shares(self._books, invoice),
        )
        expected = {
            "quantity": used.quantity - before,
            "included_units": _included(used.quantity, included) - _included(before, included),
            "amount": amount - amount_of(billed),
        }
        problems = [
            problem
            for what, value in expected.items()
            for problem in compare(invoice, number, what, fraction(line[what]), value)
        ]
        if problems and dropped:
            self.dropped += 1
        elif invoice["reading"] is None:
            self.undecided += len(problems)
        else:
            for problem in problems:
                yield problem

    async def unbilled(self, invoice: Row, since: datetime) -> AsyncIterator[Problem]:
        """What its figures had of periods from `since` on that were billed before and changed, and
        that no line of it bills.
        """
        begun = time_of(invoice["period_start"])
        told = {
            (line["metric"], time_of(line["period_start"]))
            for line in invoice["lines"]
            if line["kind"] == "LATE_USAGE"
        }
        periods = {
            (each.metric, each.start, each.end)
            for each in self._books.before(invoice)
            if each.kind == "USAGE" and since <= each.start < begun < each.end + LATE
        }
        for metric, start, end in sorted(periods, key=lambda each: (each[1], each[0] or "")):
            if (metric, start) in told:
                continue
            nothing = {"position": "0", "quantity": "0", "included_units": "0", "amount": "0"}
            line = {"metric": metric, "period_start": str(start), "period_end": str(end)}
            async for problem in self._usage(invoice, {**line, **nothing}):
                what = f"{metric} of {start:%Y-%m-%d}, no line: {problem.what}"
                yield replace(problem, what=what)

    async def _used(self, invoice: Row, line: Row, price: Row) -> tuple[Used, bool]:
        """What the events come to, and whether some of them may be gone."""
        metric = self._metrics.get(line["metric"], Metric(line["metric"], known=False))
        count = UsageCount(metric, price)
        dropped = False
        async for page in self._parts.counted_events(invoice, line):
            count.add(page.events)
            dropped |= page.dropped
        self.events += count.events
        return count.used(), dropped

    def _other(self, invoice: Row, line: Row) -> Iterator[Problem]:
        currency, amount = invoice["currency"], fraction(line["amount"])
        number, kind = int(line["position"]), line["kind"]
        if kind == "CHARGE":
            charge = self._books.charges[line["charge_id"]]
            exact = fraction(charge["quantity"]) * fraction(charge["unit_price"])
            yield from compare(invoice, number, "charge", amount, rounded(exact, currency))
            return
        if kind not in ("BASE", "SETUP_FEE"):
            return  # sums.py
        plan = self._books.plans[invoice["plan_id"], int(invoice["plan_version"])]
        if kind == "SETUP_FEE":
            fee = rounded(fraction(plan["setup_fee"]), currency)
            yield from compare(invoice, number, "setup fee", amount, fee)
            return
        if line["unit_price"] is None:
            yield from self._unused(invoice, line)
            return
        start, end = time_of(line["period_start"]), time_of(line["period_end"])
        part = [time_of(invoice[f"period_{each}"]) for each in ("start", "end")]
        opening = invoice["kind"] == "OPENING"
        ahead = not opening and start >= self._books.window(invoice, *part)[1]
        phase = self._books.phase_by_time(invoice, start)
        if opening and phase["plan_id"] != invoice["plan_id"]:
            return  # it was replaced in its first second, and credited
        price = fraction(self._books.plan_of(phase)["base_price"]) * int(phase["quantity"])
        for percent in self._books.percents(invoice, phase, part[1] if ahead else part[0]):
            price = price * (100 - percent) / 100
        share = self._books.calendar_of(invoice, phase).share(start, end)
        expected = rounded(part_of(price, share, currency), currency)
        yield from compare(invoice, number, "base price", amount, expected)

    def _unused(self, invoice: Row, line: Row) -> Iterator[Problem]:
        """A credit of what was paid in advance: of the time since the base price changed."""
        start, end = time_of(line["period_start"]), time_of(line["period_end"])
        changes = {start, time_of(invoice["period_end"])}
        changes |= set(self._books.phase_ends(invoice))
        seconds = Fraction((end - start).total_seconds())
        allowed = []
        for paid in self._books.before(invoice):
            if (paid.kind, paid.start, paid.end) == ("BASE", start, end) and paid.amount > 0:
                for change in sorted(each for each in changes if start <= each < end):
                    left = Fraction((end - change).total_seconds()) / seconds
                    allowed.append(-rounded(paid.amount * left, invoice["currency"]))
        if fraction(line["amount"]) not in allowed:
            expected = " or ".join(map(plain, allowed)) or "nothing was paid"
            number, amount = int(line["position"]), plain(fraction(line["amount"]))
            yield Problem(invoice["number"], number, "base price not used", amount, expected)

    def _missing(self, invoice: Row) -> Iterator[Problem]:
        """Each metric of the plan has a line on the invoice of a period."""
        if invoice["kind"] != "PERIOD":
            return
        plan = self._books.plans[invoice["plan_id"], int(invoice["plan_version"])]
        found = [line["metric"] for line in invoice["lines"] if line["kind"] == "USAGE"]
        for price in plan["prices"]:
            if found.count(price["metric"]) != 1:
                stored = f"{found.count(price['metric'])} lines"
                yield Problem(invoice["number"], 0, price["metric"], stored, "1 line")


def _included(quantity: Fraction, included: Fraction) -> Fraction:
    return max(min(quantity, included), ZERO)
