"""What periods of subscriptions are expected to cost."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.budgets import Budget, BudgetInput, check_budget
from services.invoicer.repository import budgets, plans
from services.invoicer.service.subscriptions import require_subscription
from services.invoicer.tables import audit_outbox
from services.kit.audit import add_audit_event, audit_event, changes
from services.kit.database import Database, TenantKey, wake_after_commit
from services.kit.errors import FieldChecks, NotFoundError, PreconditionError
from services.kit.etag import Expectation
from services.kit.money import format_money


class Budgets:
    """The budgets; who watches them is woken when one was set."""

    def __init__(
        self, database: Database, now: Callable[[], datetime], wake_watcher: Callable[[], None]
    ) -> None:
        self._database = database
        self._now = now
        self._wake_watcher = wake_watcher

    async def set_budget(
        self,
        tenant: TenantKey,
        subscription_id: str,
        given: BudgetInput,
        *,
        by_key: str,
        expect: Expectation[Budget] | None = None,
    ) -> Budget:
        """Set it in full; the same again changes nothing. InvalidArgumentError, NotFoundError,
        PreconditionError, StaleError.
        """
        now = self._now()
        async with self._database.transaction() as connection:
            subscription = await require_subscription(connection, tenant, subscription_id)
            if subscription.period is None:
                raise PreconditionError(
                    "The subscription has ended: it has no period to watch",
                    reason="subscription_ended",
                )
            # Changes of plan keep the currency.
            plan = await plans.get_plan(
                connection, tenant, subscription.plan_id, subscription.plan_version
            )
            assert plan is not None, "a subscription's plan is never deleted"
            currency = plan.content.currency
            checks = FieldChecks()
            amount, percents = check_budget(checks, given, currency)
            checks.done()
            before = await budgets.get_budget(connection, tenant, subscription_id, lock=True)
            if expect is not None:
                expect(before)
            created = now if before is None else before.create_time
            after = Budget(subscription_id, amount, currency, percents, created, now)
            if before is not None and _shown(before) == _shown(after):
                return before
            await budgets.put_budget(connection, tenant, after)
            details = changes({} if before is None else _shown(before), _shown(after))
            event = audit_event(
                tenant, "budget.set", target_id=subscription_id, key_id=by_key, details=details
            )
            await add_audit_event(connection, audit_outbox, event)
        wake_after_commit(self._wake_watcher)
        return after

    async def get_budget(self, tenant: TenantKey, subscription_id: str) -> Budget:
        """What was set; NotFoundError."""
        async with self._database.transaction() as connection:
            return await _require(connection, tenant, subscription_id)

    async def remove_budget(
        self,
        tenant: TenantKey,
        subscription_id: str,
        *,
        by_key: str,
        expect: Expectation[Budget] | None = None,
    ) -> None:
        """Watch it no more. NotFoundError, StaleError."""
        async with self._database.transaction() as connection:
            found = await _require(connection, tenant, subscription_id, lock=True)
            if expect is not None:
                expect(found)
            await budgets.delete_budget(connection, tenant, subscription_id)
            event = audit_event(
                tenant,
                "budget.removed",
                target_id=subscription_id,
                key_id=by_key,
                details={"before": _shown(found)},
            )
            await add_audit_event(connection, audit_outbox, event)


async def _require(
    connection: AsyncConnection, tenant: TenantKey, subscription_id: str, *, lock: bool = False
) -> Budget:
    await require_subscription(connection, tenant, subscription_id)
    found = await budgets.get_budget(connection, tenant, subscription_id, lock=lock)
    if found is None:
        raise NotFoundError("The subscription has no budget")
    return found


def _shown(budget: Budget) -> dict[str, object]:
    """With the names of the HTTP contract."""
    return {
        "amount": format_money(budget.amount, budget.currency),
        "currency": budget.currency,
        "percents": list(budget.percents),
    }
