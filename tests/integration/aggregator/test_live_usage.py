"""Whoever watches usage is told of every change, soon, not too often, and nothing of others."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from usageflow.aggregator.v1 import (
    aggregator_pb2,
    audit_pb2,
    audit_pb2_grpc,
    live_pb2,
    live_pb2_grpc,
)
from usageflow.common.v1 import common_pb2

from services.aggregator.audit.servicer import AuditServicer
from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.live import watching
from services.aggregator.live.changes import UsageChanges
from services.aggregator.live.servicer import LiveUsageServicer
from services.aggregator.live.watching import LiveUsage
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import UsageQuestion
from services.aggregator.rebuilds.domain import MetricChange
from services.aggregator.rebuilds.rebuilder import Rebuilder
from services.aggregator.usage_service import Usage, UsageAnswers
from services.kit.auth import Principal, invalid_key
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError, OverloadedError, UnavailableError
from services.kit.grpc_client import api_key_metadata, internal_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.messaging import Messaging
from services.kit.settings import ServiceSettings
from tests.columns import events_of
from tests.integration.aggregator.ledger import Ledger
from tests.integration.aggregator.sending import Event, batch, new_tenant, question, utc

WAIT_S = 10.0
TOKEN = "internal-token-of-32-characters-"
METRIC = "GB"


async def allowed() -> None:
    """The key still holds; there is no test clock."""


@pytest.fixture
def live(answers: UsageAnswers) -> LiveUsage:
    """What one replica's callers watch."""
    return LiveUsage(answers)


@pytest.fixture
def folder(database: Database, live: LiveUsage) -> Folder:
    """The same replica's fold."""
    return Folder(database, lambda: None, usage_changed=live.changed)


@pytest.fixture
async def tenant(metrics: Metrics) -> TenantKey:
    """With a metric."""
    tenant = new_tenant()
    await metrics.create(tenant, NewMetric(METRIC, dimensions=("region",)))
    return tenant


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found by asking from time to time."""
    monkeypatch.setattr(watching, "RECHECK_S", 60.0)


Watch = AsyncGenerator[Usage]


def watch(live: LiveUsage, tenant: TenantKey, asked: UsageQuestion | None = None) -> Any:
    return aclosing(live.watch(tenant, asked or question(METRIC), None, allowed))


async def figure(answers: Watch) -> Decimal:
    """The next answer's only figure."""
    async with asyncio.timeout(WAIT_S):
        [row] = (await anext(answers)).rows
    return row.value


async def until_figure(answers: Watch, wanted: int) -> int:
    """How many answers come until it is the figure."""
    came = 1
    while await figure(answers) != wanted:
        came += 1
    return came


async def test_the_answer_comes_at_once_and_after_each_fold(
    live: LiveUsage, folder: Folder, tenant: TenantKey, patient: None
) -> None:
    async with watch(live, tenant) as answers:
        assert await figure(answers) == 0
        await folder.apply([batch(tenant, Event(METRIC, "1.5"))])
        assert await figure(answers) == Decimal("1.5")
        await folder.apply([batch(tenant, Event(METRIC, "2"))])
        assert await figure(answers) == Decimal("3.5")


async def test_what_changes_while_an_answer_is_read_is_told_next(
    live: LiveUsage, folder: Folder, tenant: TenantKey, patient: None
) -> None:
    """A slow reader gets the newest, not what was in between."""
    async with watch(live, tenant) as answers:
        assert await figure(answers) == 0
        for _ in range(5):
            await folder.apply([batch(tenant, Event(METRIC, "1"))])
        assert await figure(answers) == 5


async def test_answers_do_not_come_faster_than_they_may(
    live: LiveUsage, folder: Folder, tenant: TenantKey, patient: None
) -> None:
    async with watch(live, tenant) as answers:
        assert await figure(answers) == 0

        async def fold() -> None:
            for _ in range(40):
                await folder.apply([batch(tenant, Event(METRIC, "1"))])
                await asyncio.sleep(0.02)

        began_s = asyncio.get_running_loop().time()
        folding = asyncio.create_task(fold())
        came = await until_figure(answers, 40)
        seconds = asyncio.get_running_loop().time() - began_s
        await folding
        assert came <= seconds / watching.ANSWER_EVERY_S + 1


async def test_other_rows_are_another_answer_and_others_are_none(
    live: LiveUsage, folder: Folder, tenant: TenantKey, patient: None
) -> None:
    asked = question(METRIC, customer_id="user_1", group_by=("region",), window="DAY")
    async with watch(live, tenant, asked) as answers:
        async with asyncio.timeout(WAIT_S):
            assert (await anext(answers)).rows == []
            await folder.apply([batch(tenant, Event(METRIC, "1", customer_id="user_2"))])
            await folder.apply([batch(new_tenant(), Event(METRIC, "4"))])
            await folder.apply([batch(tenant, Event(METRIC, "2", metadata={"region": "eu"}))])
            [row] = (await anext(answers)).rows
        assert (row.group, row.value) == ({"region": "eu"}, 2)


async def test_a_void_is_told(
    live: LiveUsage, folder: Folder, tenant: TenantKey, patient: None
) -> None:
    sent = batch(tenant, Event(METRIC, "1"), Event(METRIC, "2"))
    async with watch(live, tenant) as answers:
        assert await figure(answers) == 0
        await folder.apply([sent])
        assert await figure(answers) == 3
        voids = batch(tenant)
        voids.tenants[0].voided_events.append(events_of(sent)[0])
        await folder.apply([voids])
        assert await figure(answers) == 2


@asynccontextmanager
async def replica(nats_url: str, live: LiveUsage) -> AsyncIterator[UsageChanges]:
    """What one replica tells the others."""
    messaging = await Messaging.connect(nats_url, "test")
    changes = UsageChanges(messaging, live.changed)
    await changes.start()
    telling = asyncio.create_task(changes.run())
    yield changes
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await messaging.close()


async def test_what_another_replica_counts_is_told_by_nats(
    live: LiveUsage,
    answers: UsageAnswers,
    database: Database,
    tenant: TenantKey,
    nats_url: str,
    patient: None,
) -> None:
    elsewhere = LiveUsage(answers)
    async with replica(nats_url, live), replica(nats_url, elsewhere) as changes:
        other = Folder(database, lambda: None, usage_changed=changes.counted)
        async with watch(live, tenant) as seen:
            assert await figure(seen) == 0
            await other.apply([batch(tenant, Event(METRIC, "1"))])
            assert await figure(seen) == 1
            # So many at once are told of as any.
            many = [f"M{number}" for number in range(600)]
            await other.apply(
                [batch(tenant, Event(METRIC, "1"), *(Event(metric) for metric in many))]
            )
            assert await figure(seen) == 2


async def test_what_nobody_tells_is_found_all_the_same(
    live: LiveUsage, database: Database, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RECHECK_S", 0.6)
    silent = Folder(database, lambda: None)
    async with watch(live, tenant) as answers:
        assert await figure(answers) == 0
        await silent.apply([batch(tenant, Event(METRIC, "1"))])
        assert await figure(answers) == 1


async def test_a_watch_goes_on_with_what_a_rebuild_has_built(
    live: LiveUsage,
    folder: Folder,
    metrics: Metrics,
    database: Database,
    tenant: TenantKey,
    patient: None,
) -> None:
    """The figures of the new definition come by themselves, and what is counted by it after."""
    ledger = Ledger(tenant)
    rebuilder = Rebuilder(database, ledger, folder, lease=timedelta(0), usage_changed=live.changed)
    await folder.apply([ledger.accept(Event(METRIC, "5"), Event(METRIC, "2"))])
    async with watch(live, tenant) as answers:
        assert await figure(answers) == 7
        await metrics.update(tenant, METRIC, MetricChange(aggregation="COUNT"))
        while await rebuilder.round():
            pass
        assert await figure(answers) == 2
        await folder.apply([ledger.accept(Event(METRIC, "5"))])
        assert await figure(answers) == 3


async def test_wrong_questions_are_refused(
    live: LiveUsage, folder: Folder, tenant: TenantKey
) -> None:
    for asked, fields in (
        (question("NONE"), {"metric"}),
        (question(METRIC, page_size=5), {"limit"}),
        (question(METRIC, page_token="x"), {"cursor"}),
        (question(METRIC, start="2000-01-01", end="2099-01-01", window="15MIN"), {"window"}),
    ):
        async with watch(live, tenant, asked) as answers:
            with pytest.raises(InvalidArgumentError) as caught:
                await anext(answers)
        assert {problem.field for problem in caught.value.problems} == fields
    events = [Event(METRIC, customer_id=f"c{n}") for n in range(watching.ROWS_MAX + 1)]
    await folder.apply([batch(tenant, *events)])
    async with watch(live, tenant, question(METRIC, group_by=("customerId",))) as answers:
        with pytest.raises(InvalidArgumentError, match="1,000 rows"):
            await anext(answers)


async def test_watches_are_bounded_and_give_their_place_back(
    live: LiveUsage, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WATCHES_PER_TENANT_MAX", 1)
    async with watch(live, tenant) as first:
        await figure(first)
        async with watch(live, tenant) as second:
            with pytest.raises(OverloadedError):
                await anext(second)
        monkeypatch.setattr(watching, "WATCHES_MAX", 1)
        async with watch(live, new_tenant()) as stranger:
            with pytest.raises(OverloadedError):
                await anext(stranger)
    async with watch(live, tenant) as again:
        assert await figure(again) == 0


async def test_watches_end_when_the_service_stops(live: LiveUsage, tenant: TenantKey) -> None:
    async with watch(live, tenant) as answers:
        await figure(answers)
        await live.close()
        async with asyncio.timeout(WAIT_S):
            assert [usage async for usage in answers] == []
    async with watch(live, tenant) as late:
        with pytest.raises(UnavailableError):
            await anext(late)


async def test_a_watch_ends_after_a_while(
    live: LiveUsage, folder: Folder, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WATCH_S_MAX", 0.0)
    async with watch(live, tenant) as answers:
        assert [usage async for usage in answers] == []


@dataclass
class Keys:
    """A KeyResolver: a key names its tenant and scopes; those that are taken out are revoked."""

    known: dict[str, Principal]

    async def resolve(self, secret: str) -> Principal:
        """UnauthenticatedError for a key that is not known."""
        if secret not in self.known:
            raise invalid_key()
        return self.known[secret]


def principal(tenant: TenantKey, scope: str) -> Principal:
    mode = common_pb2.MODE_LIVE
    return Principal("key_1", tenant.organization_id, mode, "live", frozenset({scope}))


def march() -> aggregator_pb2.QueryUsageRequest:
    """What `question` asks."""
    asked = aggregator_pb2.QueryUsageRequest(metric=METRIC)
    getattr(asked, "from").FromDatetime(utc("2026-03-01"))
    asked.to.FromDatetime(utc("2026-04-01"))
    return asked


@dataclass
class Served:
    """aggregator's server, and who may call it."""

    keys: Keys
    channel: grpc.aio.Channel

    def watch(self, key: str, asked: aggregator_pb2.QueryUsageRequest | None = None) -> Any:
        stub = live_pb2_grpc.LiveUsageServiceStub(self.channel)
        request = live_pb2.WatchUsageRequest(question=asked or march())
        return stub.WatchUsage(request, timeout=60, metadata=api_key_metadata(key))


@pytest.fixture
async def served(
    live: LiveUsage, answers: UsageAnswers, metrics: Metrics, tenant: TenantKey
) -> AsyncIterator[Served]:
    stranger = new_tenant()
    keys = Keys(
        {
            "reader": principal(tenant, "read"),
            "tracker": principal(tenant, "track"),
            "stranger": principal(stranger, "read"),
        }
    )
    await metrics.create(stranger, NewMetric(METRIC))
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr("nats://unused"),
        internal_token=SecretStr(TOKEN),
        shutdown_s=2,
    )
    server = GrpcServer(settings, keys)
    server.add(
        live_pb2_grpc.add_LiveUsageServiceServicer_to_server,
        LiveUsageServicer(live, keys),
        "usageflow.aggregator.v1.LiveUsageService",
    )
    server.add(
        audit_pb2_grpc.add_AuditInternalServiceServicer_to_server,
        AuditServicer(metrics, answers),
        "usageflow.aggregator.v1.AuditInternalService",
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        yield Served(keys, channel)
    await server.stop()


async def value(call: Any) -> str:
    async with asyncio.timeout(WAIT_S):
        response = await call.read()
    assert response is not grpc.aio.EOF
    [row] = response.usage.rows
    return str(row.value)


async def code(call: Any) -> grpc.StatusCode:
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
    return caught.value.code()


async def test_it_is_watched_over_grpc_by_those_who_may(
    served: Served, folder: Folder, tenant: TenantKey
) -> None:
    reader, stranger = served.watch("reader"), served.watch("stranger")
    assert (await value(reader), await value(stranger)) == ("0", "0")
    await folder.apply([batch(tenant, Event(METRIC, "1.50"))])
    assert await value(reader) == "1.5"
    assert await code(served.watch("tracker")) is grpc.StatusCode.PERMISSION_DENIED
    assert await code(served.watch("nobody")) is grpc.StatusCode.UNAUTHENTICATED
    # The stranger has the same metric, and was told nothing.
    read = asyncio.create_task(stranger.read())
    await asyncio.wait([read], timeout=2 * watching.ANSWER_EVERY_S)
    assert not read.done()
    stranger.cancel()
    await asyncio.gather(read, return_exceptions=True)


async def test_a_question_without_times_goes_by_the_customers_test_clock_and_on_with_it(
    served: Served, folder: Folder, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RECHECK_S", 0.6)
    may, june = utc("2041-05-20T12:00"), utc("2041-06-03T12:00")

    def shows(time: datetime) -> None:
        clocks = (("user_1", round(time.timestamp() * 1_000_000)),)
        served.keys.known["reader"] = replace(principal(tenant, "read"), test_clocks=clocks)

    await folder.apply(
        [
            batch(
                tenant,
                Event(METRIC, "5", time=may - timedelta(days=1)),
                Event(METRIC, "6", time=june - timedelta(hours=1)),
            )
        ]
    )
    shows(may)
    call = served.watch(
        "reader", aggregator_pb2.QueryUsageRequest(metric=METRIC, customer_id="user_1")
    )
    assert await value(call) == "5"
    shows(june)
    assert await value(call) == "6"


async def test_a_revoked_key_sees_nothing_more(
    served: Served, folder: Folder, tenant: TenantKey, patient: None
) -> None:
    call = served.watch("reader")
    assert await value(call) == "0"
    del served.keys.known["reader"]
    await folder.apply([batch(tenant, Event(METRIC, "1"))])
    assert await code(call) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_revoked_key_sees_nothing_more_also_when_nothing_changes(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RECHECK_S", 0.6)
    call = served.watch("reader")
    assert await value(call) == "0"
    del served.keys.known["reader"]
    assert await code(call) is grpc.StatusCode.UNAUTHENTICATED


async def test_an_audit_sees_any_organization_with_the_internal_token_only(
    served: Served, folder: Folder, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event(METRIC, "7"))])
    stub = audit_pb2_grpc.AuditInternalServiceStub(served.channel)
    whose: dict[str, Any] = {
        "organization_id": tenant.organization_id,
        "mode": common_pb2.MODE_LIVE,
    }
    asked = march()
    requests: list[tuple[Any, Any]] = [
        (stub.ListTenantMetrics, audit_pb2.ListTenantMetricsRequest(**whose)),
        (stub.QueryTenantUsage, audit_pb2.QueryTenantUsageRequest(**whose, question=asked)),
    ]
    for method, request in requests:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, timeout=WAIT_S, metadata=api_key_metadata("reader"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        request.mode = common_pb2.MODE_UNSPECIFIED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, timeout=WAIT_S, metadata=internal_metadata(SecretStr(TOKEN)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        request.mode = common_pb2.MODE_LIVE
    token = internal_metadata(SecretStr(TOKEN))
    listed = await requests[0][0](requests[0][1], timeout=WAIT_S, metadata=token)
    assert [metric.key for metric in listed.page.metrics] == [METRIC]
    usage = await requests[1][0](requests[1][1], timeout=WAIT_S, metadata=token)
    assert [row.value for row in usage.usage.rows] == ["7"]
