"""Translates between proto and domain; the interceptor has checked the internal token."""

from usageflow.aggregator.v1 import aggregator_pb2
from usageflow.aggregator.v1 import audit_pb2 as pb
from usageflow.aggregator.v1.audit_pb2_grpc import AuditInternalServiceServicer

from services.aggregator.metric_service import Metrics
from services.aggregator.recounter import answered
from services.aggregator.servicer import metric_message, question_of, tenant_of, usage_response
from services.aggregator.usage_service import UsageAnswers


class AuditServicer(AuditInternalServiceServicer):
    """What callers with an API key see of their own organization, for any of them."""

    def __init__(self, metrics: Metrics, answers: UsageAnswers) -> None:
        self._metrics = metrics
        self._answers = answers

    async def ListTenantMetrics(
        self, request: pb.ListTenantMetricsRequest, context: object
    ) -> pb.ListTenantMetricsResponse:
        """A page of an organization's metrics."""
        metrics, next_page_token = await self._metrics.list(
            tenant_of(request), request.page.page_size, request.page.page_token, archived=True
        )
        page = aggregator_pb2.ListMetricsResponse(
            metrics=[metric_message(metric) for metric in metrics], next_page_token=next_page_token
        )
        return pb.ListTenantMetricsResponse(page=page)

    async def QueryTenantUsage(
        self, request: pb.QueryTenantUsageRequest, context: object
    ) -> pb.QueryTenantUsageResponse:
        """An organization's usage."""
        tenant, asked = tenant_of(request), question_of(request.question)
        usage = await answered(lambda: self._answers.query(tenant, asked))
        return pb.QueryTenantUsageResponse(usage=usage_response(usage))
