"""What holds for every request: shapes, headers, logs, connections."""

import asyncio
import json
from typing import Any

import grpc
import httpx
import pytest
from usageflow.accounts.v1 import accounts_pb2
from usageflow.aggregator.v1 import aggregator_pb2

from cli.embedded import EmbeddedNats
from services.kit.errors import NotFoundError
from services.kit.grpc_server import GrpcServer
from tests.integration.gateway.conftest import ORGANIZATION_ID, Gateway, World, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVENT = {"metric": "API_CALL", "amount": 1}
EVENT_REQUEST = (
    b"POST /api/track HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"x-usageflow-api-key: %s\r\nContent-Length: %d\r\n\r\n"
)


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


async def connect(gateway: Gateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_takes_no_key(gateway: Gateway, path: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.get(path)
        head = await client.head(path)
        posted = await client.post(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert (head.status_code, head.content) == (200, b"")
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing", "/api/customers/a/b", "/api"])
async def test_an_unknown_path_is_404_in_the_contracts_shape(
    http: httpx.AsyncClient, path: str
) -> None:
    answer = await http.get(path)
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "There is nothing under this path",
        "code": "not_found",
        "details": [],
        "requestId": answer.headers["x-request-id"],
    }


async def test_an_unknown_method_is_405_and_tells_the_known_ones(http: httpx.AsyncClient) -> None:
    answer = await http.put("/api/metrics", json={})
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "POST", "OPTIONS"}


async def test_options_tells_all_methods_of_a_path(http: httpx.AsyncClient) -> None:
    for path, methods in (
        ("/api/organization", "GET, OPTIONS, PATCH"),
        ("/api/customers/a%2Fb/tax-rates", "GET, OPTIONS, PUT"),
    ):
        answer = await http.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, methods)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/track"),
        ("POST", "/api/track/batch"),
        ("GET", "/api/track"),
        ("GET", "/api/metrics"),
        ("OPTIONS", "/api/metrics"),
        ("GET", "/api/nothing"),
        ("GET", "/api/openapi.json"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/docs"),
        ("GET", "/sign-in"),
        ("GET", "/dashboard"),
        ("GET", "/dashboard/nothing"),
        ("GET", "/portal/nothing"),
    ],
)
async def test_every_answer_has_the_callers_request_id_and_security_headers(
    http: httpx.AsyncClient, world: World, method: str, path: str
) -> None:
    world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
    answer = await http.request(method, path, headers={"x-request-id": "my-id"})
    assert answer.headers["x-request-id"] == "my-id"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "server" not in answer.headers


async def test_the_openapi_document_takes_no_key(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        document = (await client.get("/api/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert {"/api/track", "/api/track/batch", "/api/usage"} <= document["paths"].keys()
    names = {each["name"]: each for each in document["paths"]["/api/usage"]["get"]["parameters"]}
    assert names["metric"]["required"] is True
    assert names["filter"]["style"] == "deepObject"
    assert names["groupBy"]["explode"] is False
    _assert_references_lead_somewhere(document, document)


async def test_the_reference_takes_no_key_and_loads_nothing_but_its_style(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        page = await client.get("/docs")
        style = await client.get("/docs/style.css")
        document = (await client.get("/api/openapi.json")).json()
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert "http://" not in page.text
    for path, item in document["paths"].items():
        assert path in page.text
        for operation in item.values():
            assert f'id="{operation["operationId"]}"' in page.text
    assert len(page.content) < 300_000


def _assert_references_lead_somewhere(document: dict[str, Any], part: Any) -> None:
    if isinstance(part, dict):
        if "$ref" in part:
            target: Any = document
            for name in part["$ref"].removeprefix("#/").split("/"):
                target = target[name]
        for value in part.values():
            _assert_references_lead_somewhere(document, value)
    elif isinstance(part, list):
        for value in part:
            _assert_references_lead_somewhere(document, value)


async def test_no_key_is_ever_logged(
    http: httpx.AsyncClient, world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
    (secret,) = world.principals
    await http.get("/api/metrics")
    await http.post("/api/track", json=EVENT)
    await http.post("/api/track", json=EVENT, headers={"x-usageflow-api-key": secret + "x"})
    printed = "".join(capfd.readouterr())
    assert "/api/metrics" in printed
    assert secret not in printed


async def test_the_access_log_tells_who_asked_for_what_and_how_long_it_took(
    http: httpx.AsyncClient, world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    """The route, not the path: that may name a customer."""
    world.answers["GetCustomer"] = NotFoundError("No such customer")
    await http.get("/api/customers/ada%40example.com?surprise=1")
    (line,) = (line for line in capfd.readouterr().out.splitlines() if " request " in line)
    for told in ("method=GET", "route=/api/customers/{customer_id}", "status=400", "ms="):
        assert told in line
    assert f"organization_id={ORGANIZATION_ID}" in line
    assert "ada" not in line
    assert "surprise" not in line


async def test_the_access_log_has_events_only_where_it_is_wanted(
    nats_server: EmbeddedNats, capfd: pytest.CaptureFixture[str]
) -> None:
    logged: list[list[str]] = []
    for wanted in (False, True):
        async with serving(nats_server.url, access_log_track=wanted) as gateway:
            key = {"x-usageflow-api-key": gateway.world.new_key()}
            for path, content in (("/api/track", EVENT), ("/api/track/batch", {"events": [EVENT]})):
                answer = await gateway.client.post(path, json=content, headers=key)
                assert answer.status_code == 200, answer.text
            await gateway.client.post("/api/track", json={}, headers=key)
            await gateway.client.get("/api/track", headers=key)
        printed = capfd.readouterr().out
        assert key["x-usageflow-api-key"] not in printed
        logged.append([line for line in printed.splitlines() if " request " in line])
    counted, (event, batch, refused, wrong_method) = logged
    assert counted == []
    for line, route, status in (
        (event, "/api/track", 200),
        (batch, "/api/track/batch", 200),
        (refused, "/api/track", 400),
    ):
        for told in ("method=POST", f"route={route}", f"status={status}", "ms="):
            assert told in line
        assert f"organization_id={ORGANIZATION_ID}" in line
    assert "method=GET" in wrong_method
    assert "status=405" in wrong_method


async def test_a_defect_of_ours_tells_nothing_of_the_inside(
    http: httpx.AsyncClient, world: World
) -> None:
    unheard_of = accounts_pb2.ApiKey(id="key_1", mode=99)  # type: ignore[arg-type]
    world.answers["ListApiKeys"] = accounts_pb2.ListApiKeysResponse(api_keys=[unheard_of])
    answer = await http.get("/api/keys")
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "Something went wrong here; it was logged under the requestId",
        "code": "internal",
        "details": [],
        "requestId": answer.headers["x-request-id"],
    }
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_pipelined_requests_are_answered_in_order(gateway: Gateway, world: World) -> None:
    reader, writer = await connect(gateway)
    body = json.dumps(EVENT).encode()
    request = EVENT_REQUEST % (world.new_key().encode(), len(body)) + body
    writer.write(request * 5 + b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answers = await asyncio.wait_for(reader.read(), 5)
    assert answers.count(b'{"success":true') == 5
    assert answers.endswith(b'{"status":"ok"}')
    writer.close()


async def test_a_client_that_goes_away_leaves_nothing_behind(
    gateway: Gateway, http: httpx.AsyncClient, world: World
) -> None:
    for sent in (b'{"metric"', b""):
        _, writer = await connect(gateway)
        writer.write(EVENT_REQUEST % (world.new_key().encode(), 100) + sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await http.post("/api/track", json=EVENT)).status_code == 200
    assert len(world.events) == 1


async def test_expecting_clients_are_refused_before_they_send_too_much(
    gateway: Gateway, world: World
) -> None:
    reader, writer = await connect(gateway)
    head = EVENT_REQUEST % (world.new_key().encode(), 300_000)
    writer.write(head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_request_is_followed_into_the_services(
    http: httpx.AsyncClient, world: World, services: GrpcServer
) -> None:
    """The request id goes along as gRPC metadata, which kit puts into the services' logs."""
    world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
    seen: list[str] = []
    original = world.answer

    async def answer(method: str, request: Any) -> Any:
        from services.kit import context

        seen.append(context.request_id.get())
        return await original(method, request)

    world.answer = answer  # type: ignore[method-assign]
    await http.get("/api/metrics", headers={"x-request-id": "my-id"})
    assert seen[-1] == "my-id"


async def test_only_the_internal_token_opens_the_internal_services(services: GrpcServer) -> None:
    """The server of these tests checks as the real ones do: the gateway's token is really sent."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{services.port}") as channel:
        call: Any = channel.unary_unary("/usageflow.ingest.v1.IngestInternalService/GetWatermark")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def send_in_parts(gateway: Gateway, parts: list[bytes]) -> bytes:
    """The answers to bytes that arrive one part after the other, until the connection is closed."""
    reader, writer = await connect(gateway)
    writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.001)
    answers = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answers


@pytest.mark.parametrize("step", [1, 7, 100])
async def test_a_request_that_comes_in_small_parts_is_read(
    gateway: Gateway, world: World, step: int
) -> None:
    body = json.dumps(EVENT).encode()
    request = EVENT_REQUEST % (world.new_key().encode(), len(body)) + body
    request += request.replace(b"Host: a", b"Connection: close\r\nHost: a")
    parts = [request[at : at + step] for at in range(0, len(request), step)]
    answers = await send_in_parts(gateway, parts)
    assert answers.count(b'{"success":true') == 2
    assert answers.count(b"connection: close") == 1


@pytest.mark.parametrize("size", [1, 3, 16_384, 200_000])
async def test_chunked_bodies_of_any_size_are_read(
    gateway: Gateway, world: World, size: int
) -> None:
    body = json.dumps(EVENT).encode().ljust(size)
    chunks = [body[at : at + 1_000] for at in range(0, len(body), 1_000)]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = EVENT_REQUEST % (world.new_key().encode(), 0)
    head = head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked\r\nConnection: close")
    answer = await send_in_parts(gateway, [head, chunked])
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_old_client_gets_its_answer_and_a_closed_connection(
    gateway: Gateway, world: World
) -> None:
    body = json.dumps(EVENT).encode()
    request = EVENT_REQUEST % (world.new_key().encode(), len(body)) + body
    request = request.replace(b"HTTP/1.1", b"HTTP/1.0")
    answer = await send_in_parts(gateway, [request])
    assert b'{"success":true' in answer


async def test_a_client_that_goes_away_while_its_event_is_stored_harms_nobody(
    gateway: Gateway, http: httpx.AsyncClient, world: World
) -> None:
    body = json.dumps(EVENT).encode()
    await http.post("/api/track", json=EVENT)  # the key is known now: the next ones are quick
    world.recording.clear()
    secret = http.headers["x-usageflow-api-key"].encode()
    _, writer = await connect(gateway)
    writer.write(EVENT_REQUEST % (secret, len(body)) + body)
    await writer.drain()
    waiting = asyncio.create_task(http.post("/api/track", json=EVENT))
    await asyncio.wait([waiting], timeout=0.2)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    world.recording.set()
    assert (await waiting).status_code == 200
    assert len(world.events) == 3


async def test_what_is_pipelined_behind_a_waiting_event_is_answered_after_it(
    gateway: Gateway, http: httpx.AsyncClient, world: World
) -> None:
    await http.post("/api/track", json=EVENT)
    world.recording.clear()
    body = json.dumps(EVENT).encode()
    event = EVENT_REQUEST % (http.headers["x-usageflow-api-key"].encode(), len(body)) + body
    health = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    reading = asyncio.create_task(send_in_parts(gateway, [event + health + event + last]))
    await asyncio.wait([reading], timeout=0.2)
    assert not reading.done()
    world.recording.set()
    answers = await reading
    bodies = [part.partition(b"HTTP/1.1")[0] for part in answers.split(b"\r\n\r\n")[1:]]
    assert [body[:12] for body in bodies] == [
        b'{"success":t',
        b'{"status":"o',
        b'{"success":t',
        b'{"status":"o',
    ]
