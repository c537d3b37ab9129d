"""aggregator over real gRPC, with a stand-in for ingest that speaks its protocol."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.aggregator.v1 import aggregator_pb2 as pb
from usageflow.aggregator.v1 import aggregator_pb2_grpc
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.aggregator.activity import Activities
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.reconciliation.standing import Standings
from services.aggregator.replay import IngestReplay
from services.aggregator.servicer import AggregatorInternalServicer, AggregatorServicer
from services.aggregator.settings import AggregatorSettings
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_service import UsageAnswers
from services.aggregator.watermark import IngestWatermark
from services.kit import clock, usage_token
from services.kit.auth import MODE_NAMES, Principal, invalid_key
from services.kit.database import Database, TenantKey
from services.kit.errors import DomainError, UnavailableError, from_rpc_error
from services.kit.grpc_client import api_key_metadata, internal_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from tests.integration.aggregator.conftest import TOKEN_WAIT_S
from tests.integration.aggregator.sending import Event, batch, new_tenant, utc

DEADLINE_S = 10.0
TENANT = new_tenant()
OTHER = new_tenant()


class IngestStandIn(ingest_pb2_grpc.IngestInternalServiceServicer):
    """Tells the watermark that a test has set, when the test lets it."""

    def __init__(self) -> None:
        self.watermark = utc("2026-03-31T12:00")
        self.calls = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def GetWatermark(
        self, request: ingest_pb2.GetWatermarkRequest, context: object
    ) -> ingest_pb2.GetWatermarkResponse:
        self.calls += 1
        await self.may_answer.wait()
        return ingest_pb2.GetWatermarkResponse(watermark=stamp(self.watermark))

    async def RecordTenantEvents(
        self,
        request: ingest_pb2.RecordTenantEventsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> ingest_pb2.RecordTenantEventsResponse:
        # aggregator never calls it.
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED)

    async def ReplayEvents(
        self, request: ingest_pb2.ReplayEventsRequest, context: object
    ) -> AsyncIterator[ingest_pb2.ReplayEventsResponse]:
        """There are no events."""
        events: list[ingest_pb2.ReplayEventsResponse] = []
        for some in events:
            yield some

    async def ReplayHistory(
        self, request: ingest_pb2.ReplayHistoryRequest, context: object
    ) -> AsyncIterator[ingest_pb2.ReplayHistoryResponse]:
        """Nothing was ever stored."""
        yield ingest_pb2.ReplayHistoryResponse()


class Keys:
    """A KeyResolver: a key names its organization's number, mode and scopes."""

    async def resolve(self, secret: str) -> Principal:
        if secret not in KEYS:
            raise invalid_key()
        tenant, mode, scopes = KEYS[secret]
        clocks = (("traveller", int(AHEAD.timestamp()) * 1_000_000),)
        return Principal(
            "key_1",
            tenant.organization_id,
            mode,
            MODE_NAMES[mode],
            scopes,
            test_clocks=clocks if mode == common_pb2.MODE_TEST else (),
        )


# What the test clock of one customer in test mode shows.
AHEAD = utc("2031-05-20T12:07")
KEYS = {
    "admin": (TENANT, common_pb2.MODE_LIVE, frozenset({"admin"})),
    "test-admin": (TENANT, common_pb2.MODE_TEST, frozenset({"admin"})),
    "reader": (TENANT, common_pb2.MODE_LIVE, frozenset({"read"})),
    "tracker": (TENANT, common_pb2.MODE_LIVE, frozenset({"track"})),
    "stranger": (OTHER, common_pb2.MODE_LIVE, frozenset({"admin"})),
}


def stamp(time: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(time)
    return made


@dataclass
class Client:
    """Calls aggregator; `ingest` is what it asks for the watermark."""

    channel: grpc.aio.Channel
    settings: AggregatorSettings
    ingest: IngestStandIn
    ingest_server: grpc.aio.Server

    def __post_init__(self) -> None:
        self.public = aggregator_pb2_grpc.AggregatorServiceStub(self.channel)
        self.internal = aggregator_pb2_grpc.AggregatorInternalServiceStub(self.channel)

    async def create(self, key: str, metric: pb.Metric) -> pb.Metric:
        response = await self.public.CreateMetric(
            pb.CreateMetricRequest(metric=metric),
            timeout=DEADLINE_S,
            metadata=api_key_metadata(key),
        )
        return response.metric

    async def query(self, key: str, **fields: object) -> pb.QueryUsageResponse:
        return await self.public.QueryUsage(
            pb.QueryUsageRequest(**fields),  # type: ignore[arg-type]
            timeout=DEADLINE_S,
            metadata=api_key_metadata(key),
        )

    async def billable(self, *selections: pb.UsageSelection) -> pb.GetBillableUsageResponse:
        return await self.internal.GetBillableUsage(
            pb.GetBillableUsageRequest(
                organization_id=TENANT.organization_id,
                mode=common_pb2.MODE_LIVE,
                selections=selections,
            ),
            timeout=DEADLINE_S,
            metadata=internal_metadata(self.settings.internal_token),
        )


@pytest.fixture
async def client(database: Database, database_url: str) -> AsyncIterator[Client]:
    """A client of a running aggregator next to a stand-in for ingest."""
    ingest, ingest_server = IngestStandIn(), grpc.aio.server()
    ingest_pb2_grpc.add_IngestInternalServiceServicer_to_server(ingest, ingest_server)
    ingest_port = ingest_server.add_insecure_port("127.0.0.1:0")
    await ingest_server.start()
    settings = AggregatorSettings(
        database_url=database_url,
        nats_url="nats://unused",
        internal_token="t" * 32,
        ingest_address=f"127.0.0.1:{ingest_port}",
        usage_token_wait_s=TOKEN_WAIT_S,
    )
    async with open_channel(settings.ingest_address) as to_ingest:
        watermark = IngestWatermark(to_ingest, settings.internal_token)
        waits = TokenWait(database, watermark, settings.usage_token_wait_s)
        replay = IngestReplay(to_ingest, settings.internal_token, timeout_s=DEADLINE_S)
        answers = UsageAnswers(database, watermark, waits, replay, watermark_recent_s=0.0)
        server = GrpcServer(settings, Keys())
        server.add(
            aggregator_pb2_grpc.add_AggregatorServiceServicer_to_server,
            AggregatorServicer(
                Metrics(database), answers, Activities(database), Standings(database)
            ),
            "usageflow.aggregator.v1.AggregatorService",
        )
        server.add(
            aggregator_pb2_grpc.add_AggregatorInternalServiceServicer_to_server,
            AggregatorInternalServicer(answers, Metrics(database)),
            "usageflow.aggregator.v1.AggregatorInternalService",
        )
        await server.start()
        async with open_channel(f"127.0.0.1:{server.port}") as channel:
            yield Client(channel, settings, ingest, ingest_server)
        await server.stop()
    await ingest_server.stop(None)


MARCH = {"from": stamp(utc("2026-03-01")), "to": stamp(utc("2026-04-01"))}
TOKENS = pb.Metric(
    key="AI_TOKEN",
    name="Tokens",
    unit="tokens",
    aggregation=pb.AGGREGATION_SUM,
    dimensions=["model"],
)


async def test_a_metric_is_defined_read_and_listed(client: Client) -> None:
    made = await client.create("admin", TOKENS)
    again = await client.create("admin", TOKENS)
    assert made == again
    assert (made.key, made.unit, list(made.dimensions)) == ("AI_TOKEN", "tokens", ["model"])
    assert made.create_time.ToDatetime(UTC) <= clock.now()
    await client.create("admin", pb.Metric(key="API_CALL"))
    metadata = api_key_metadata("reader")
    got = await client.public.GetMetric(
        pb.GetMetricRequest(key="AI_TOKEN"), timeout=DEADLINE_S, metadata=metadata
    )
    assert got.metric == made
    first = await client.public.ListMetrics(
        pb.ListMetricsRequest(page_size=1), timeout=DEADLINE_S, metadata=metadata
    )
    rest = await client.public.ListMetrics(
        pb.ListMetricsRequest(page_token=first.next_page_token),
        timeout=DEADLINE_S,
        metadata=metadata,
    )
    assert [m.key for m in (*first.metrics, *rest.metrics)] == ["API_CALL", "AI_TOKEN"]
    assert first.metrics[0].aggregation == pb.AGGREGATION_SUM
    assert rest.next_page_token == ""


async def test_usage_is_answered_as_the_contract_says(client: Client, folder: Folder) -> None:
    await client.create("admin", TOKENS)
    events = [
        Event("AI_TOKEN", "1500.50", time="2026-03-02T23:30", metadata={"model": "gpt-4"}),
        Event("AI_TOKEN", "0.000000000001", time="2026-03-02T23:45", metadata={"model": "gpt-4"}),
    ]
    await folder.apply([batch(TENANT, *events)])
    response = await client.query(
        "reader",
        metric="AI_TOKEN",
        window=pb.WINDOW_DAY,
        group_by=["model", "customerId"],
        time_zone="Asia/Kathmandu",
        filters={"model": "gpt-4"},
        **MARCH,
    )
    start: dict[str, Any] = {"from": MARCH["from"]}
    assert response == pb.QueryUsageResponse(
        metric="AI_TOKEN",
        to=MARCH["to"],
        as_of=stamp(utc("2026-03-31T12:00")),
        rows=[
            pb.UsageRow(
                start_time=stamp(utc("2026-03-02T18:15")),
                end_time=stamp(utc("2026-03-03T18:15")),
                group={"model": "gpt-4", "customerId": "user_1"},
                value="1500.500000000001",
            )
        ],
        **start,
    )


async def test_windows_that_nobody_named_go_by_the_customers_test_clock(
    client: Client, folder: Folder
) -> None:
    await client.create("test-admin", TOKENS)
    event = Event("AI_TOKEN", "7", "traveller", AHEAD)
    await folder.apply([batch(TenantKey(TENANT.organization_id, "test"), event)])
    answer = await client.query("test-admin", metric="AI_TOKEN", customer_id="traveller")
    times = [getattr(answer, name).ToDatetime(UTC) for name in ("from", "to")]
    assert times == [utc("2031-05-01"), utc("2031-05-20T12:15")]
    assert [row.value for row in answer.rows] == ["7"]
    for fields in ({"customer_id": "other"}, {}):
        others = await client.query("test-admin", metric="AI_TOKEN", **fields)
        assert others.to.ToDatetime(UTC) <= clock.now() + timedelta(minutes=15)


async def test_nobody_sees_another_organization_s_or_mode_s_usage(
    client: Client, folder: Folder
) -> None:
    await folder.apply([batch(TENANT, Event("A", "1")), batch(OTHER, Event("A", "20"))])
    for key, value in (("reader", "1"), ("stranger", "20")):
        [row] = (await client.query(key, metric="A", **MARCH)).rows
        assert row.value == value
    assert await error_of(client.query("test-admin", metric="A", **MARCH)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ["metric"],
    )


async def error_of(call: object) -> tuple[grpc.StatusCode, list[str]]:
    """The status of a call that fails, and the fields that it names."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]
    error: DomainError = from_rpc_error(refused.value)
    return refused.value.code(), [problem.field for problem in error.problems]


async def test_scopes_are_required(client: Client) -> None:
    denied: tuple[grpc.StatusCode, list[str]] = (grpc.StatusCode.PERMISSION_DENIED, [])
    assert await error_of(client.create("reader", TOKENS)) == denied
    assert await error_of(client.query("tracker", metric="A")) == denied
    for call in (
        client.public.GetMetric(
            pb.GetMetricRequest(key="A"), timeout=DEADLINE_S, metadata=api_key_metadata("tracker")
        ),
        client.public.ListMetrics(
            pb.ListMetricsRequest(), timeout=DEADLINE_S, metadata=api_key_metadata("tracker")
        ),
    ):
        assert await error_of(call) == denied
    assert (await error_of(client.query("wrong")))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_wrong_fields_are_named(client: Client) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    unique = pb.Metric(key="U", aggregation=pb.AGGREGATION_UNIQUE_COUNT, unique_by="user id")
    assert await error_of(client.create("admin", unique)) == (invalid, ["uniqueBy"])
    unknown = pb.Metric(key="U", aggregation=99, unique_by="userId")  # type: ignore[arg-type]
    assert await error_of(client.create("admin", unknown)) == (invalid, ["aggregation", "uniqueBy"])
    await client.create("admin", TOKENS)
    other = pb.Metric(key="AI_TOKEN", aggregation=pb.AGGREGATION_MAX)
    assert await error_of(client.create("admin", other)) == (grpc.StatusCode.ALREADY_EXISTS, [])
    wrong = client.query("reader", metric="NOPE", window=99, time_zone="x", filters={"a": "b"})
    assert await error_of(wrong) == (invalid, ["metric", "timezone", "window"])
    too_late = client.query("reader", metric="AI_TOKEN", to=Timestamp(seconds=10**18))
    assert await error_of(too_late) == (invalid, ["to"])


WRONG_QUESTIONS: list[tuple[dict[str, object], list[str], str]] = [
    ({"metric": "NOPE"}, ["metric"], "there is no such"),
    ({"window": 99}, ["window"], "15MIN, HOUR, DAY, WEEK, MONTH, TOTAL"),
    ({"time_zone": "Mars/Olympus"}, ["timezone"], "IANA"),
    ({"group_by": ["colour"]}, ["groupBy"], "customerId, model"),
    ({"filters": {"colour": "x"}}, ["filter"], "allowed: model"),
    ({"filters_any": {"colour": pb.FilterValues(values=["x"])}}, ["filter"], "allowed: model"),
    ({"filters_any": {"model": pb.FilterValues()}}, ["filter"], "1 to 100"),
    ({"to": Timestamp(seconds=0)}, ["to"], "quarter of an hour between"),
    ({"from": stamp(utc("2026-03-01T00:01"))}, ["from"], "quarter of an hour"),
    ({"from": stamp(utc("2026-04-01")), "to": stamp(utc("2026-04-01"))}, ["from"], "before to"),
    (
        {
            "from": stamp(utc("2026-03-01")),
            "to": stamp(utc("2026-03-01") + timedelta(hours=10_000, minutes=15)),
            "window": pb.WINDOW_HOUR,
        },
        ["window"],
        "10,000",
    ),
    ({"top": 5}, ["top"], "groupBy"),
    ({"page_size": 10_001}, ["limit"], "10,000"),
    ({"page_token": "x"}, ["cursor"], "limit"),
    ({"percentile": pb.PERCENTILE_P95}, ["percentile"], "percentiles"),
    ({"percentile": 9}, ["percentile"], "P50, P95, P99"),
]


async def test_every_wrong_part_of_a_question_is_named_with_what_is_allowed(client: Client) -> None:
    await client.create("admin", TOKENS)
    for change, fields, allowed in WRONG_QUESTIONS:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.query("reader", **{"metric": "AI_TOKEN", **change})
        error = from_rpc_error(refused.value)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [problem.field for problem in error.problems] == fields
        assert allowed in error.message


async def test_values_and_percentiles_are_told_over_grpc(client: Client, folder: Folder) -> None:
    users = pb.Metric(
        key="USERS",
        aggregation=pb.AGGREGATION_UNIQUE_COUNT,
        unique_by="userId",
        percentiles=True,
        dimensions=["model"],
    )
    made = await client.create("admin", users)
    assert (made.unique_by, made.percentiles) == ("userId", True)
    events = [
        Event("USERS", str(n), metadata={"userId": f"u{n % 3}", "model": "abc"[n % 3]})
        for n in range(1, 101)
    ]
    await folder.apply([batch(TENANT, *events), batch(OTHER, Event("USERS", "1"))])
    counted = await client.query("reader", metric="USERS", **MARCH)
    assert ([row.value for row in counted.rows], counted.approximate) == (["3"], False)
    told = await client.query("reader", metric="USERS", percentile=pb.PERCENTILE_P95, **MARCH)
    assert ([row.value for row in told.rows], told.approximate) == (["95"], True)
    some = {"model": pb.FilterValues(values=["a", "c"])}
    filtered = await client.query("reader", metric="USERS", filters_any=some, **MARCH)
    assert [row.value for row in filtered.rows] == ["2"]


async def test_billable_usage_takes_the_internal_token_only(client: Client, folder: Folder) -> None:
    await folder.apply([batch(TENANT, Event("A", "2.50"))])
    selection = pb.UsageSelection(
        customer_id="user_1",
        metrics=["A", "B"],
        splits=[
            pb.UsageSplit(metric="A", matches=[pb.DimensionMatch(dimensions={"model": "gpt-4"})])
        ],
        **MARCH,
    )
    response = await client.billable(selection)
    assert response == pb.GetBillableUsageResponse(
        as_of=stamp(utc("2026-03-31T12:00")),
        selections=[
            pb.SelectionUsage(
                metrics=[
                    pb.MetricUsage(
                        metric="A",
                        quantity="2.5",
                        event_count=1,
                        amount_sum="2.5",
                        part_quantities=["0", "2.5"],
                        adds_up=True,
                    ),
                    pb.MetricUsage(metric="B", quantity="0", amount_sum="0", adds_up=True),
                ]
            )
        ],
    )
    for metadata in (api_key_metadata("admin"), (("x-usageflow-internal-token", "u" * 32),)):
        call = client.internal.GetBillableUsage(
            pb.GetBillableUsageRequest(), timeout=DEADLINE_S, metadata=metadata
        )
        assert (await error_of(call))[0] is grpc.StatusCode.UNAUTHENTICATED
    nobody = client.internal.GetBillableUsage(
        pb.GetBillableUsageRequest(organization_id=TENANT.organization_id),
        timeout=DEADLINE_S,
        metadata=internal_metadata(client.settings.internal_token),
    )
    assert await error_of(nobody) == (grpc.StatusCode.INVALID_ARGUMENT, ["mode"])


async def test_what_somebody_has_defined_is_told_ingest_and_nobody_else(
    client: Client, folder: Folder
) -> None:
    for key in ("A", "D"):
        await client.create("admin", pb.Metric(key=key))
    await client.public.ArchiveMetric(
        pb.ArchiveMetricRequest(key="D"), timeout=DEADLINE_S, metadata=api_key_metadata("admin")
    )
    await folder.apply([batch(TENANT, Event("B", "1"))])
    keys = ["A", "B", "C", "D", "no key"]
    told = []
    for mode in (common_pb2.MODE_LIVE, common_pb2.MODE_TEST):
        request = pb.FindDefinedMetricsRequest(
            organization_id=TENANT.organization_id, mode=mode, keys=keys
        )
        response = await client.internal.FindDefinedMetrics(
            request,
            timeout=DEADLINE_S,
            metadata=internal_metadata(client.settings.internal_token),
        )
        answers = (response.keys, response.self_defined_keys, response.archived_keys)
        told.append([list(keys) for keys in answers])
    assert told == [[["A", "D"], ["B"], ["D"]], [[], [], []]]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.internal.FindDefinedMetrics(
            request, timeout=DEADLINE_S, metadata=api_key_metadata("admin")
        )
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_without_ingest_questions_are_answered_and_bills_are_not(
    client: Client, folder: Folder
) -> None:
    await folder.apply([batch(TENANT, Event("A"))])
    known = (await client.query("reader", metric="A", **MARCH)).as_of
    await client.ingest_server.stop(None)
    assert (await client.query("reader", metric="A", **MARCH)).as_of == known
    code, _ = await error_of(client.billable())
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_an_ingest_that_hangs_is_given_up_in_time(client: Client, folder: Folder) -> None:
    await folder.apply([batch(TENANT, Event("A"))])
    known = (await client.query("reader", metric="A", **MARCH)).as_of
    client.ingest.may_answer.clear()
    assert (await client.query("reader", metric="A", **MARCH)).as_of == known
    client.ingest.may_answer.set()


async def test_a_question_with_a_token_counts_what_the_token_stands_for(
    client: Client, folder: Folder
) -> None:
    made = batch(TENANT, Event("A", "5"))
    await folder.apply([made])
    token = usage_token.encode([UUID(made.batch_id)], clock.now())
    [row] = (await client.query("reader", metric="A", usage_token=token, **MARCH)).rows
    assert row.value == "5"


async def test_a_token_that_does_not_come_true_is_told_once_and_when_to_try_again(
    client: Client,
) -> None:
    """The channel would repeat the call otherwise, and wait once more each time."""
    token = usage_token.encode([uuid4()], clock.now())
    started_s = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.query("reader", metric="A", usage_token=token, **MARCH)
    assert time.monotonic() - started_s < 2 * TOKEN_WAIT_S
    error = from_rpc_error(refused.value)
    assert (type(error), error.retry_after_s) == (UnavailableError, 1.0)


async def test_a_malformed_token_is_refused_by_its_name(client: Client) -> None:
    asked = client.query("reader", metric="A", usage_token="?", **MARCH)
    assert await error_of(asked) == (grpc.StatusCode.INVALID_ARGUMENT, ["usageToken"])


async def test_what_the_watermark_promises_is_in_the_answer(client: Client, folder: Folder) -> None:
    """The batch is counted while the question waits for the watermark, so it has to be in."""
    await client.create("admin", pb.Metric(key="A"))
    client.ingest.may_answer.clear()
    asked = asyncio.create_task(client.query("reader", metric="A", **MARCH))
    async with asyncio.timeout(DEADLINE_S):
        while client.ingest.calls == 0:
            await asyncio.sleep(0)
    await folder.apply([batch(TENANT, Event("A", "5"))])
    client.ingest.may_answer.set()
    response = await asked
    assert [row.value for row in response.rows] == ["5"]
    assert response.as_of == stamp(client.ingest.watermark)


async def test_questions_at_once_share_a_call_and_an_older_answer_never_replaces_a_newer(
    client: Client,
) -> None:
    channel = open_channel(client.settings.ingest_address)
    source = IngestWatermark(channel, client.settings.internal_token)
    client.ingest.may_answer.clear()
    asked = [asyncio.create_task(source.ask()) for _ in range(20)]
    async with asyncio.timeout(DEADLINE_S):
        while client.ingest.calls == 0:
            await asyncio.sleep(0)
    client.ingest.may_answer.set()
    assert set(await asyncio.gather(*asked)) == {utc("2026-03-31T12:00")}
    assert client.ingest.calls == 1
    client.ingest.watermark = utc("2026-03-30")
    assert await source.ask() == source.last == utc("2026-03-31T12:00")
    await client.ingest_server.stop(None)
    with pytest.raises(UnavailableError):
        await source.ask()
    await channel.close()
