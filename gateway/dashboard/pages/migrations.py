"""/dashboard/plans/{id}/migrate"""

from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import invoicer_pb2

from gateway.dashboard.forms import Form
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import plans, subscription_changes
from gateway.shapes.subscription_changes import Migration, NewMigration
from gateway.strict_json import Number
from services.kit.errors import DomainError
from services.kit.pages import PAGE_SIZE_MAX

# A press of the button moves so many pages of subscriptions; the next one goes on from there.
PAGES_AT_ONCE: Final = 5
# A page moves each subscription by itself.
PAGE_S: Final = 60.0
TIMINGS: Final = (
    ("PERIOD_END", "Each when its running period ends"),
    ("NOW", "Now, what is left of the period in proportion"),
)


@get("/dashboard/plans/{plan_id:str}/migrate", include_in_schema=False)
async def show_migration(visit: Visited, plan_id: FromPath[str]) -> Response[bytes]:
    """The form: which version, when."""
    visit.require("billing")
    return await _show(visit, plan_id, visit.form)


@post("/dashboard/plans/{plan_id:str}/migrate", include_in_schema=False)
async def migrate(visit: Visited, plan_id: FromPath[str]) -> Response[bytes]:
    """Tell what would be done, or do it."""
    form = visit.form
    try:
        given = form.read(
            NewMigration, limit=Number(str(PAGE_SIZE_MAX)), dryRun=form.get("_do") != "migrate"
        )
        moved, cursor = await _move(visit, plan_id, given)
    except DomainError as error:
        form.refuse(error)
        return await _show(visit, plan_id, form, 400)
    return await _show(visit, plan_id, form, moved=moved, next_cursor=cursor, dry_run=given.dry_run)


async def _move(visit: Visit, plan_id: str, given: NewMigration) -> tuple[list[Migration], str]:
    """What was done, and where to go on; "": all is done."""
    moved: list[Migration] = []
    request = subscription_changes.migration_to_proto(plan_id, given)
    for _ in range(PAGES_AT_ONCE):
        answer = await visit.calls.call(visit.calls.changes.MigrateSubscriptions, request, PAGE_S)
        page = subscription_changes.migrations_from_proto(answer)
        moved += page.data
        request.page_token = page.next_cursor or ""
        if not page.next_cursor:
            break
    return moved, request.page_token


async def _show(
    visit: Visit, plan_id: str, form: Form, status: int = 200, **done: Any
) -> Response[bytes]:
    request = invoicer_pb2.GetPlanRequest(plan_id=plan_id)
    answer = await visit.calls.call(visit.calls.invoicer.GetPlan, request)
    shown: dict[str, Any] = {"moved": None, "next_cursor": "", "dry_run": True}
    return visit.page(
        "plan_migrate.html",
        status,
        form=form,
        plan=plans.from_proto(answer.plan),
        timings=TIMINGS,
        **(shown | done),
    )


HANDLERS = [show_migration, migrate]
