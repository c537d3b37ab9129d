"""What may be simulated; all problems are named at once. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.invoicer.checks import PlanInput, check_customer_id, check_draft
from services.invoicer.domain import Plan
from services.invoicer.simulation import DRAFT_ID, Months, month_of
from services.kit.errors import FieldChecks
from services.kit.ids import is_id

MONTHS_MAX = 12
CUSTOMER_IDS_MAX = 10_000
# aggregator keeps nothing from before that.
YEAR_MIN = 2000

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)


@dataclass(frozen=True, slots=True)
class SimulationInput:
    """A simulation as asked for: months as "2026-01"; no `customer_ids`: all who have a
    subscription; `plan_id` "": whatever plan they are on.
    """

    plan: PlanInput
    from_month: str
    to_month: str
    customer_ids: Sequence[str] = ()
    plan_id: str = ""


@dataclass(frozen=True, slots=True)
class Simulation:
    """A simulation that can be run; `customer_ids` are in order, each once."""

    draft: Plan
    months: Months
    customer_ids: tuple[str, ...]
    plan_id: str


def check_simulation(
    given: SimulationInput, now: datetime, unpriceable: Mapping[str, str]
) -> Simulation:
    """InvalidArgumentError names all that is wrong. `unpriceable`: as for check_plan."""
    checks = FieldChecks()
    content = check_draft(checks, given.plan, unpriceable)
    first = _month(checks, given.from_month, "from", now)
    last = _month(checks, given.to_month, "to", now)
    ordered = checks.require(first <= last, "from", "must not be after to")
    few = last - first < MONTHS_MAX
    checks.require(few or not ordered, "to", f"must be at most {MONTHS_MAX} months in all")
    right = not given.plan_id or is_id(given.plan_id, "plan")
    checks.require(right, "planId", 'must be the id of a plan, "plan_..."')
    ids = dict.fromkeys(given.customer_ids)
    allowed = f"must be at most {CUSTOMER_IDS_MAX:,}"
    if checks.require(len(ids) <= CUSTOMER_IDS_MAX, "customerIds", allowed):
        for index, customer_id in enumerate(given.customer_ids):
            check_customer_id(checks, customer_id, f"customerIds[{index}]")
    checks.done()
    draft = Plan(DRAFT_ID, 0, content, now)
    return Simulation(draft, Months(first, last), tuple(sorted(ids)), given.plan_id)


def _month(checks: FieldChecks, text: str, name: str, now: datetime) -> int:
    match = _MONTH.fullmatch(text)
    if not checks.require(match is not None, name, 'must be a month such as "2026-01"'):
        return month_of(now)
    assert match is not None
    month = int(match.group(1)) * 12 + int(match.group(2)) - 1
    known = YEAR_MIN * 12 <= month <= month_of(now)
    this = f"{now:%Y-%m}"
    checks.require(known, name, f"must be from {YEAR_MIN}-01 to this month, {this}")
    return month
