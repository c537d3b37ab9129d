"""Translates between proto and domain; the interceptor has checked the internal token."""

from datetime import UTC

from usageflow.aggregator.v1 import quotas_pb2 as pb
from usageflow.aggregator.v1.quotas_pb2_grpc import PlanLimitsInternalServiceServicer

from services.aggregator.quotas.plan_limits import PlanLimit, PlanLimits, SubscriptionLimits
from services.aggregator.servicer import tenant_of
from services.kit import clock
from services.kit.errors import FieldChecks


class PlanLimitsServicer(PlanLimitsInternalServiceServicer):
    """What invoicer tells of plans."""

    def __init__(self, limits: PlanLimits) -> None:
        self._limits = limits

    async def SetSubscriptionLimits(
        self, request: pb.SetSubscriptionLimitsRequest, context: object
    ) -> pb.SetSubscriptionLimitsResponse:
        """Put a subscription's limits in the place of those that were told before."""
        checks = FieldChecks()
        limits = [
            PlanLimit(
                metric=limit.metric,
                limit=checks.decimal(limit.limit, f"limits[{number}].limit"),
                enforcement=pb.QuotaEnforcement.Name(limit.enforcement).removeprefix(
                    "QUOTA_ENFORCEMENT_"
                ),
            )
            for number, limit in enumerate(request.limits)
        ]
        checks.done()
        unknown = await self._limits.set(
            SubscriptionLimits(
                tenant=tenant_of(request),
                customer_id=request.customer_id,
                subscription_id=request.subscription_id,
                boundaries=[each.ToDatetime(UTC) for each in request.boundaries],
                limits=limits,
                time=request.time.ToDatetime(UTC) if request.HasField("time") else clock.now(),
            )
        )
        return pb.SetSubscriptionLimitsResponse(unknown_metrics=unknown)
