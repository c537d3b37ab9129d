"""Translates between proto and domain for budgets; decides nothing but who may call."""

from usageflow.invoicer.v1 import budgets_pb2 as pb
from usageflow.invoicer.v1.budgets_pb2_grpc import BudgetsServiceServicer

from services.invoicer.budgets import Budget, BudgetInput
from services.invoicer.messages import timestamp
from services.invoicer.service.budgets import Budgets
from services.kit.auth import require_scope
from services.kit.etag import expecting, tagged
from services.kit.money import format_money


class BudgetsServicer(BudgetsServiceServicer):
    """What callers may do in their own organization and mode."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    async def SetBudget(
        self, request: pb.SetBudgetRequest, context: object
    ) -> pb.SetBudgetResponse:
        """Watch what a subscription's periods come to."""
        principal = require_scope("admin")
        budget = await self._budgets.set_budget(
            principal.tenant,
            request.subscription_id,
            BudgetInput(request.amount, tuple(request.percents)),
            by_key=principal.actor_id,
            expect=expecting(request.if_match, _message),
        )
        return pb.SetBudgetResponse(budget=_message(budget))

    async def GetBudget(
        self, request: pb.GetBudgetRequest, context: object
    ) -> pb.GetBudgetResponse:
        """The same."""
        tenant = require_scope("read").tenant
        found = await self._budgets.get_budget(tenant, request.subscription_id)
        return pb.GetBudgetResponse(budget=_message(found))

    async def RemoveBudget(
        self, request: pb.RemoveBudgetRequest, context: object
    ) -> pb.RemoveBudgetResponse:
        """Watch it no more."""
        principal = require_scope("admin")
        await self._budgets.remove_budget(
            principal.tenant,
            request.subscription_id,
            by_key=principal.actor_id,
            expect=expecting(request.if_match, _message),
        )
        return pb.RemoveBudgetResponse()


def _message(budget: Budget) -> pb.Budget:
    return tagged(
        pb.Budget(
            subscription_id=budget.subscription_id,
            amount=format_money(budget.amount, budget.currency),
            currency=budget.currency,
            percents=budget.percents,
            create_time=timestamp(budget.create_time),
            update_time=timestamp(budget.update_time),
        )
    )
