"""Plans and what they would cost."""

from collections.abc import Callable
from datetime import datetime

import structlog

from services.invoicer import audited
from services.invoicer.checks import PlanInput, QuoteInput, check_plan, check_quote
from services.invoicer.domain import Plan, PlanContent
from services.invoicer.plan_metrics import unpriceable
from services.invoicer.quotes import Quote, quote
from services.invoicer.repository import plans
from services.invoicer.service.paging import Page, id_position, next_token
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError
from services.kit.ids import is_id, new_id
from services.kit.metrics import MetricsSource

log = structlog.get_logger()


class Plans:
    """What a subscription costs, in versions that never change."""

    def __init__(
        self, database: Database, now: Callable[[], datetime], metrics: MetricsSource
    ) -> None:
        self._database = database
        self._now = now
        self._metrics = metrics

    async def create_plan(
        self, tenant: TenantKey, given: PlanInput, *, strict_metrics: bool = False
    ) -> Plan:
        """A new plan, version 1. The metrics that it prices must be known, with `strict_metrics`
        defined. UnavailableError when that can't be told now.
        """
        content = await self._checked(tenant, given, strict_metrics)
        plan = Plan(new_id("plan"), 1, content, self._now())
        async with self._database.transaction() as connection:
            await plans.insert_plan(connection, tenant, plan)
            await audited.note(connection, tenant, "plan.created", plan.id, audited.plan(plan))
        log.info("plan_created", plan_id=plan.id)
        return plan

    async def create_plan_version(
        self, tenant: TenantKey, plan_id: str, given: PlanInput, *, strict_metrics: bool = False
    ) -> Plan:
        """The plan's next version, as in create_plan; subscriptions stay on theirs."""
        content = await self._checked(tenant, given, strict_metrics)
        if not is_id(plan_id, "plan"):
            raise NotFoundError("No such plan")
        async with self._database.transaction() as connection:
            version = await plans.take_next_version(connection, tenant, plan_id)
            if version is None:
                raise NotFoundError("No such plan")
            plan = Plan(plan_id, version, content, self._now())
            await plans.insert_version(connection, tenant, plan)
            shown = audited.plan(plan)
            await audited.note(connection, tenant, "plan.version_created", plan_id, shown)
        log.info("plan_version_created", plan_id=plan_id, version=version)
        return plan

    async def _checked(
        self, tenant: TenantKey, given: PlanInput, strict_metrics: bool
    ) -> PlanContent:
        refused = await unpriceable(self._metrics, tenant, given, strict=strict_metrics)
        return check_plan(given, refused)

    async def get_plan(self, tenant: TenantKey, plan_id: str, version: int) -> Plan:
        """A version of a plan; 0: the newest."""
        if not is_id(plan_id, "plan"):
            raise NotFoundError("No such plan")
        async with self._database.transaction() as connection:
            found = await plans.get_plan(connection, tenant, plan_id, version)
        if found is None:
            raise NotFoundError("No such plan")
        return found

    async def list_plans(self, tenant: TenantKey, page: Page) -> tuple[list[Plan], str]:
        """A page of plans in their newest versions."""
        limit, before_id = pages.page_limit(page.size), id_position(page.token, "plan")
        async with self._database.transaction() as connection:
            found = await plans.list_plans(connection, tenant, before_id=before_id, limit=limit + 1)
        return found[:limit], next_token([plan.id for plan in found], limit)

    def quote_plan(self, given: QuoteInput) -> Quote:
        """What a plan would cost; nothing is stored."""
        return quote(*check_quote(given))
