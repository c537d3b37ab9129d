"""/api/billing-settings"""

from litestar import Response, get, patch
from litestar.params import JSONBody
from usageflow.invoicer.v1 import billing_settings_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.shapes.billing_settings import (
    BillingSettings,
    BillingSettingsChange,
    change_to_proto,
    from_proto,
)


@get("/api/billing-settings")
async def get_billing_settings(calls: ApiCalls) -> Response[BillingSettings]:
    """What the organization decides about its invoices, in the calling key's mode."""
    answer = await calls.call(calls.settings.GetBillingSettings, pb.GetBillingSettingsRequest())
    return Response(from_proto(answer.settings), headers=etag(answer.settings))


@patch("/api/billing-settings")
async def change_billing_settings(
    calls: ApiCalls, data: JSONBody[BillingSettingsChange], if_match: IfMatch = None
) -> Response[BillingSettings]:
    """Change the settings; what is left out stays. It holds for what is not invoiced yet."""
    request = change_to_proto(data)
    request.if_match.extend(tags_of(if_match))
    answer = await calls.call(calls.settings.UpdateBillingSettings, request)
    return Response(from_proto(answer.settings), headers=etag(answer.settings))


HANDLERS = [get_billing_settings, change_billing_settings]
