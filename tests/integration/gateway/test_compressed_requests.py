"""Track requests may be compressed; their limits are those of the inflated body."""

import asyncio
import gzip
import json
import shutil
import subprocess

import httpx
import pytest

from gateway import batch_body, track
from tests.integration.gateway.conftest import Gateway, World

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVENT = {"metric": "API_CALL", "amount": 1, "customerId": "user_123"}
LINES = b"".join(json.dumps(EVENT).encode() + b"\n" for _ in range(1_000))
NODE = """
const zlib = require("node:zlib");
const [url, key] = process.argv.slice(1);
const lines = Array.from({length: 100}, () => JSON.stringify({metric: "API_CALL", amount: 1}));
fetch(url + "/api/track/batch", {method: "POST", body: zlib.gzipSync(lines.join("\\n")), headers: {
  "x-usageflow-api-key": key, "content-type": "application/x-ndjson", "content-encoding": "gzip",
}}).then(async (answer) => console.log((await answer.json()).accepted));
"""


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


async def send(http: httpx.AsyncClient, path: str, body: bytes, **headers: str) -> httpx.Response:
    kinds = {"content_type": "application/json", "content_encoding": "gzip"} | headers
    named = {name.replace("_", "-"): value for name, value in kinds.items()}
    return await http.post(path, content=body, headers=named)


@pytest.mark.parametrize(
    ("path", "plain", "kind", "events"),
    [
        ("/api/track", json.dumps(EVENT).encode(), "application/json", 1),
        (
            "/api/track/batch",
            json.dumps({"events": [EVENT] * 1_000}).encode(),
            "application/json",
            1_000,
        ),
        ("/api/track/batch", LINES, "application/x-ndjson", 1_000),
    ],
)
async def test_a_compressed_request_is_as_good_as_a_plain_one(
    http: httpx.AsyncClient, world: World, path: str, plain: bytes, kind: str, events: int
) -> None:
    answer = await send(http, path, gzip.compress(plain), content_type=kind)
    assert answer.status_code == 200, answer.text
    assert len(world.events) == events


async def test_what_is_wrong_inside_is_told_as_in_a_plain_one(
    http: httpx.AsyncClient, world: World
) -> None:
    answer = await send(http, "/api/track", gzip.compress(b'{"metric": "A"}'))
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, "amount")
    assert world.events == []


@pytest.mark.parametrize(
    ("path", "bytes_max"),
    [
        ("/api/track", track.BODY_BYTES_MAX),
        ("/api/track/batch", batch_body.BODY_BYTES_MAX),
    ],
)
async def test_a_bomb_is_413(
    http: httpx.AsyncClient, world: World, path: str, bytes_max: int
) -> None:
    answer = await send(http, path, gzip.compress(b" " * (bytes_max + 1)))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert str(bytes_max) in answer.json()["error"]
    assert world.events == []


@pytest.mark.parametrize("path", ["/api/track", "/api/track/batch"])
async def test_what_is_not_gzip_is_400(http: httpx.AsyncClient, world: World, path: str) -> None:
    for body in (b"{}", gzip.compress(b"{}")[:-1], gzip.compress(b"{}") + b"more"):
        answer = await send(http, path, body)
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, "body")


@pytest.mark.parametrize("path", ["/api/track", "/api/track/batch"])
async def test_another_encoding_is_415_with_what_is_allowed(
    http: httpx.AsyncClient, path: str
) -> None:
    answer = await send(http, path, b"{}", content_encoding="br")
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip")
    assert answer.json()["code"] == "unsupported_content_encoding"


async def test_other_requests_are_not_compressed(http: httpx.AsyncClient) -> None:
    answer = await send(http, "/api/metrics", gzip.compress(b'{"key": "A"}'))
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
async def test_a_node_client_may_compress(
    http: httpx.AsyncClient, gateway: Gateway, world: World
) -> None:
    key = http.headers["x-usageflow-api-key"]
    command = ["node", "-e", NODE, gateway.url, key]
    run = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=30, check=False
    )
    assert run.stdout.strip() == "100", run.stderr
