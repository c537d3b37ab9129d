"""The sender against receivers that are broken or hostile; each leaves the expected record."""

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from services.notifier.domain import Attempt
from services.notifier.resolving import AddressInfo, CheckedResolver, RefusedAddressError
from services.notifier.sender import Address, Sender, Webhook
from services.notifier.signing import SigningKey
from tests.integration.notifier.conftest import Receiver, status

# Of senders whose receiver never comes to an end, and of all others (the machine may be busy).
TIMEOUT_S = 0.5
PATIENT_S = 10.0

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"


def webhook(url: str) -> Webhook:
    return Webhook(Address(url, {}, [SigningKey("v1", b"k" * 32)]), "whevt_1", b"{}")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes at the end what a test opens."""
    async with AsyncExitStack() as stack:
        yield stack


def make_sender(stack: AsyncExitStack, **changes: object) -> Sender:
    options = {"allow_private": True, "timeout_s": PATIENT_S, **changes}
    sender = Sender(**options)  # type: ignore[arg-type]
    stack.push_async_callback(sender.close)
    return sender


async def raw_server(stack: AsyncExitStack, serve: Serve, tls: ssl.SSLContext | None = None) -> int:
    """A TCP server that reads the request's head and goes on with `serve`; returns its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    stack.callback(server.close)
    return int(server.sockets[0].getsockname()[1])


async def attempt_at(stack: AsyncExitStack, serve: Serve, timeout_s: float = PATIENT_S) -> Attempt:
    port = await raw_server(stack, serve)
    sender = make_sender(stack, timeout_s=timeout_s)
    return await sender.send(webhook(f"http://127.0.0.1:{port}/"))


async def until_closed(writer: asyncio.StreamWriter, chunk: bytes, pause_s: float) -> None:
    while not writer.is_closing():
        writer.write(chunk)
        await writer.drain()
        await asyncio.sleep(pause_s)


async def test_a_body_that_stalls_ends_with_the_deadline(stack: AsyncExitStack) -> None:
    async def stall(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"content-length: 100\r\n\r\npart")
        await writer.drain()
        await asyncio.Event().wait()

    attempt = await attempt_at(stack, stall, TIMEOUT_S)
    assert (attempt.error, attempt.response_status) == ("timeout", 200)
    assert attempt.response_body == b"part"
    assert TIMEOUT_S * 1000 <= attempt.duration_ms < PATIENT_S * 1000


async def test_a_body_of_single_bytes_does_not_move_the_deadline(stack: AsyncExitStack) -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"content-length: 1000\r\n\r\n")
        await until_closed(writer, b".", 0.02)

    attempt = await attempt_at(stack, drip, TIMEOUT_S)
    assert (attempt.error, attempt.response_status) == ("timeout", 200)
    assert attempt.duration_ms < PATIENT_S * 1000


async def test_a_head_that_never_ends_is_a_timeout_or_refused(stack: AsyncExitStack) -> None:
    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await until_closed(writer, b"x-more: y\r\n" * 1_000, 0)

    attempt = await attempt_at(stack, endless, TIMEOUT_S)
    assert attempt.error in ("timeout", "connection")
    assert attempt.response_status == 0


async def test_no_head_at_all_is_a_timeout(stack: AsyncExitStack) -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    attempt = await attempt_at(stack, silent, TIMEOUT_S)
    assert (attempt.error, attempt.response_status) == ("timeout", 0)


async def test_of_an_endless_body_64_kib_are_read_and_16_kept(stack: AsyncExitStack) -> None:
    sent = 0

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + b"\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    attempt = await attempt_at(stack, endless)
    assert (attempt.error, attempt.response_status) == ("", 200)
    assert len(attempt.response_body) == 16 * 1024
    assert sent < 32 * 1024 * 1024


async def test_a_gzip_bomb_is_not_unpacked(stack: AsyncExitStack, receiver: Receiver) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"content-encoding": "gzip"})

    receiver.always = answer
    attempt = await make_sender(stack).send(webhook(receiver.url))
    assert attempt.error == ""
    assert attempt.response_body == bomb[: 16 * 1024]


@pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    stack: AsyncExitStack, receiver: Receiver, number: int
) -> None:
    async def redirect(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=number, headers={"location": receiver.url + "/secret"})

    receiver.always = redirect
    attempt = await make_sender(stack).send(webhook(receiver.url))
    assert (attempt.error, attempt.response_status) == ("http_status", number)
    assert receiver.requests.qsize() == 1


@pytest.mark.parametrize("number", [400, 401, 404, 410, 429, 500, 502, 504])
async def test_any_status_but_2xx_is_a_failure(
    stack: AsyncExitStack, receiver: Receiver, number: int
) -> None:
    receiver.always = status(number, "no")
    attempt = await make_sender(stack).send(webhook(receiver.url))
    assert (attempt.error, attempt.response_status) == ("http_status", number)
    assert attempt.response_body == b"no"


@pytest.mark.parametrize("number", [200, 201, 202, 204, 299])
async def test_any_2xx_is_a_success(stack: AsyncExitStack, receiver: Receiver, number: int) -> None:
    receiver.always = status(number)
    attempt = await make_sender(stack).send(webhook(receiver.url))
    assert (attempt.error, attempt.response_status) == ("", number)


async def test_a_reset_connection_is_a_failed_connection(stack: AsyncExitStack) -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    attempt = await attempt_at(stack, reset)
    assert (attempt.error, attempt.response_status) == ("connection", 0)


async def test_an_answer_that_is_no_http_is_a_failed_connection(stack: AsyncExitStack) -> None:
    async def ssh(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()

    attempt = await attempt_at(stack, ssh)
    assert (attempt.error, attempt.response_status) == ("connection", 0)


async def test_a_closed_port_is_a_failed_connection(stack: AsyncExitStack) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    attempt = await make_sender(stack).send(webhook(f"http://127.0.0.1:{port}/"))
    assert (attempt.error, attempt.response_status) == ("connection", 0)


def found(*addresses: str) -> Callable[[str, int], Sequence[AddressInfo]]:
    """A look-up that finds these addresses."""

    def look_up(_host: str, port: int) -> Sequence[AddressInfo]:
        infos: list[AddressInfo] = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            infos.append((family, socket.SOCK_STREAM, 6, "", (address, port)))
        return infos

    return look_up


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["1.1.1.1", "127.0.0.1"],
        ["2606:4700:4700::1111", "::1"],
        ["::ffff:127.0.0.1"],
    ],
)
async def test_a_name_with_any_private_address_is_refused(
    stack: AsyncExitStack, addresses: list[str]
) -> None:
    sender = make_sender(stack, allow_private=False, look_up=found(*addresses))
    attempt = await sender.send(webhook("https://hooks.example.com/"))
    assert (attempt.error, attempt.response_status) == ("refused_address", 0)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/",
        "https://[::1]:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/",
        "https://169.254.169.254/",
        "https://localhost:{port}/",
        "http://1.1.1.1/",
    ],
)
async def test_a_private_address_in_the_url_is_refused_without_a_connection(
    stack: AsyncExitStack, url: str
) -> None:
    connections = 0

    async def count(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    stack.callback(server.close)
    port = server.sockets[0].getsockname()[1]
    sender = make_sender(stack, allow_private=False)
    attempt = await sender.send(webhook(url.format(port=port)))
    assert (attempt.error, attempt.response_status) == ("refused_address", 0)
    assert connections == 0


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
async def test_numbers_that_getaddrinfo_takes_for_loopback_are_refused(
    stack: AsyncExitStack, host: str
) -> None:
    sender = make_sender(stack, allow_private=False)
    attempt = await sender.send(webhook(f"https://{host}/"))
    assert attempt.error in ("refused_address", "dns")
    assert attempt.response_status == 0


async def test_a_name_that_changes_its_address_meets_the_check_each_time(
    stack: AsyncExitStack,
) -> None:
    """DNS rebinding: what a look-up found is checked and, as addresses, connected to."""
    answers = [found("1.1.1.1"), found("127.0.0.1")]
    resolver = CheckedResolver(
        allow_private=False,
        look_up=lambda host, port: answers.pop(0)(host, port),
        remembered_s=0,
    )
    stack.callback(resolver.close)
    (first,) = await resolver.resolve("rebound.example", 443, "org_a")
    assert first[-1] == ("1.1.1.1", 443)
    with pytest.raises(RefusedAddressError):
        await resolver.resolve("rebound.example", 443, "org_a")


async def test_a_name_is_looked_up_once_an_attempt_and_the_connection_goes_where_that_led(
    stack: AsyncExitStack, receiver: Receiver
) -> None:
    """DNS rebinding between the check and the connection: nobody would answer the second time."""
    answers = [found("127.0.0.1"), found("127.0.0.2")]
    sender = make_sender(stack, look_up=lambda host, port: answers.pop(0)(host, port))
    port = receiver.url.split(":")[2]
    attempt = await sender.send(webhook(f"http://rebound.example:{port}"))
    assert (attempt.error, attempt.response_status) == ("", 200)
    assert len(answers) == 1


async def test_names_that_hang_hold_up_no_other_organization(stack: AsyncExitStack) -> None:
    """Not even one that sends to the same name."""
    answer = threading.Event()

    def look_up(host: str, port: int) -> Sequence[AddressInfo]:
        if host.startswith("slow"):
            answer.wait(PATIENT_S)
        return found("1.1.1.1")(host, port)

    resolver = CheckedResolver(allow_private=False, look_up=look_up)
    stack.callback(resolver.close)
    names = [f"slow{number}.example" for number in range(100)] + ["good.example"]
    hanging = [asyncio.create_task(resolver.resolve(name, 443, "org_a")) for name in names]
    async with asyncio.timeout(PATIENT_S):
        await resolver.resolve("good.example", 443, "org_b")
    assert not any(task.done() for task in hanging)
    answer.set()
    assert len(await asyncio.gather(*hanging)) == len(names)


async def test_a_name_that_is_nowhere_is_a_dns_failure(stack: AsyncExitStack) -> None:
    def nowhere(_host: str, _port: int) -> Sequence[AddressInfo]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    attempt = await make_sender(stack, look_up=nowhere).send(webhook("http://nowhere.example/"))
    assert (attempt.error, attempt.response_status) == ("dns", 0)


async def test_the_environment_s_proxy_is_not_used(
    stack: AsyncExitStack, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await make_sender(stack).send(webhook(receiver.url))).error == ""


async def test_cookies_of_one_receiver_go_nowhere(
    stack: AsyncExitStack, receiver: Receiver
) -> None:
    async def cookie(_request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"set-cookie": "session=1"})

    receiver.always = cookie
    sender = make_sender(stack)
    for _ in range(2):
        await sender.send(webhook(receiver.url))
        assert "cookie" not in (await receiver.next()).headers


async def test_a_handshake_that_stalls_is_a_timeout(stack: AsyncExitStack) -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    stack.callback(server.close)
    port = server.sockets[0].getsockname()[1]
    sender = make_sender(stack, timeout_s=TIMEOUT_S)
    attempt = await sender.send(webhook(f"https://127.0.0.1:{port}/"))
    assert (attempt.error, attempt.response_status) == ("timeout", 0)


async def test_an_answer_without_tls_is_a_tls_failure(
    stack: AsyncExitStack, receiver: Receiver
) -> None:
    url = receiver.url.replace("http://", "https://")
    attempt = await make_sender(stack).send(webhook(url))
    assert (attempt.error, attempt.response_status) == ("tls", 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of hooks.example, signed by itself, and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=hooks.example"]
    command += ["-addext", "subjectAltName=DNS:hooks.example"]
    command += ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


async def tls_server(stack: AsyncExitStack, certificate: Path) -> tuple[int, list[str | None]]:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    async def thanks(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"content-length: 0\r\n\r\n")
        await writer.drain()

    return await raw_server(stack, thanks, context), names


async def test_tls_names_the_host_though_the_connection_goes_to_the_checked_address(
    stack: AsyncExitStack, certificate: Path
) -> None:
    port, names = await tls_server(stack, certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    sender = make_sender(stack, look_up=found("127.0.0.1"), tls=trusting)
    attempt = await sender.send(webhook(f"https://hooks.example:{port}/"))
    assert (attempt.error, attempt.response_status) == ("", 200)
    assert names == ["hooks.example"]


async def test_a_certificate_of_another_name_or_of_nobody_known_is_a_tls_failure(
    stack: AsyncExitStack, certificate: Path
) -> None:
    port, _ = await tls_server(stack, certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    for tls, host in ((trusting, "other.example"), (None, "hooks.example")):
        sender = make_sender(stack, look_up=found("127.0.0.1"), tls=tls)
        attempt = await sender.send(webhook(f"https://{host}:{port}/"))
        assert (attempt.error, attempt.response_status) == ("tls", 0)
