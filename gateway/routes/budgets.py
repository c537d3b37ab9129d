"""/api/subscriptions/{id}/budget"""

from litestar import Response, delete, get, put
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import budgets_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.shapes.budgets import Budget, NewBudget, from_proto, to_proto


@put("/api/subscriptions/{subscription_id:str}/budget")
async def set_budget(
    calls: ApiCalls,
    subscription_id: FromPath[str],
    data: JSONBody[NewBudget],
    if_match: IfMatch = None,
) -> Response[Budget]:
    """Set in full what a period of the subscription is expected to cost.

    usage.threshold_reached goes out at each percentage of it that the running period would be
    invoiced now, once a period; that is looked at every minute or as the installation has it.
    """
    request = to_proto(subscription_id, data)
    request.if_match.extend(tags_of(if_match))
    answer = await calls.call(calls.budgets.SetBudget, request)
    return Response(from_proto(answer.budget), headers=etag(answer.budget))


@get("/api/subscriptions/{subscription_id:str}/budget")
async def get_budget(calls: ApiCalls, subscription_id: FromPath[str]) -> Response[Budget]:
    """What a period of the subscription is expected to cost; 404 when nobody has said."""
    request = pb.GetBudgetRequest(subscription_id=subscription_id)
    answer = await calls.call(calls.budgets.GetBudget, request)
    return Response(from_proto(answer.budget), headers=etag(answer.budget))


@delete("/api/subscriptions/{subscription_id:str}/budget")
async def remove_budget(
    calls: ApiCalls, subscription_id: FromPath[str], if_match: IfMatch = None
) -> None:
    """Take the budget away: nothing is told any more."""
    request = pb.RemoveBudgetRequest(subscription_id=subscription_id, if_match=tags_of(if_match))
    await calls.call(calls.budgets.RemoveBudget, request)


HANDLERS = [set_budget, get_budget, remove_budget]
