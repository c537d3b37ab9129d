"""A real browser (Debian's Chromium) in front of a running stack, signed in by a link.

Any violation of the content security policy and any error of our script fails the test it happens
in. Pages that tests look at are kept as pictures in build/screenshots, light and dark; not in CI.
"""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import asyncpg
import grpc
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright
from usageflow.accounts.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    members_pb2,
    members_pb2_grpc,
)

from cli.connection import Connection
from services.kit import clock, ids
from tests.e2e.api import REQUEST_TIMEOUT_S, first_organization_id, internal_metadata

SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"
# A machine that is five times slower than ours passes, too.
WAIT_MS = 30_000
ZONE = "Australia/Adelaide"
WIDTH, HEIGHT = 1280, 900
TELEPHONE_WIDTH = 380
# Controls that lie on each other.
OVERLAPPING = """() => {
    const controls = [...document.querySelectorAll("input, select, textarea, button, .button")]
        .filter((each) => each.checkVisibility() && !each.closest(".confirm > .body"))
        .map((each) => [each.name || each.textContent.trim(), each.getBoundingClientRect()]);
    return controls.flatMap(([one, a], index) => controls.slice(index + 1)
        .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 1 && b.top < a.bottom - 1)
        .map(([other]) => `${one} and ${other}`));
}"""
# Tables with columns that only show when somebody finds out that they can be moved.
CUT_OFF = """() => [...document.querySelectorAll(".table")]
    .filter((each) => each.checkVisibility() && each.scrollWidth > each.clientWidth + 1)
    .map((each) => `${each.textContent.trim().slice(0, 80)}: ${each.scrollWidth} px`)"""


# Told without the elements that are right: to tell of them took longer than to look.
SERIOUS_FINDINGS = """async (only) => {
    const options = { resultTypes: ["violations"] };
    if (only.length) options.runOnly = only;
    const { violations } = await axe.run(options);
    return violations
        .filter((each) => ["serious", "critical"].includes(each.impact))
        .map((each) => [each.id, each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))]);
}"""


@pytest.fixture(scope="package")
def playwright(stack: Connection) -> Iterator[Playwright]:
    """The driver of the browser, until the last test of this directory.

    It has an event loop of this thread for itself meanwhile: the stack's start needs one before.
    """
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Chromium, without windows."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        message = "no chromium here (apt-get install chromium): the dashboard is NOT tried"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    yield running
    running.close()


@contextmanager
def receiver(status: int, body: bytes = b"") -> Iterator[tuple[str, list[bytes]]]:
    """A webhook endpoint that always answers so: its address, and the bodies that it got."""
    bodies: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        server.server_close()


class Visitor:
    """Somebody with a browser of their own."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.faults: list[str] = []
        self.page = self._page()

    def _page(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        return page

    def _on_console(self, message: object) -> None:
        text = str(getattr(message, "text", message))
        if "Content Security Policy" in text or "Content-Security-Policy" in text:
            self.faults.append(text)

    def open(self, path: str) -> Page:
        """The page under /dashboard."""
        self.page.goto(f"{self.url}/dashboard{path}")
        return self.page

    def sign_in(self, token: str) -> None:
        """Open a sign-in link and press its button."""
        self.page.goto(f"{self.url}/sign-in?token={token}")
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/dashboard")

    def keep(self, name: str) -> None:
        """Keep a picture of the page, light and dark."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            self.picture(f"{name}-{scheme}")
        self.page.emulate_media(color_scheme="light")

    def picture(self, name: str) -> None:
        """Keep a picture of the page as it is; in CI, where nobody would see it, none."""
        if os.environ.get("CI"):
            return
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def serious_findings(self, only: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
        """What axe finds wrong with the page, and in which elements; `only` by these rules."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(AXE_SCRIPT)
        found = self.page.evaluate(SERIOUS_FINDINGS, list(only))
        return [(rule, elements) for rule, elements in found]

    def examine(self, name: str) -> None:
        """The page is accessible, light and dark, nothing of it covers or cuts off anything, and it
        fits a telephone; pictures are kept.
        """
        assert self.serious_findings() == []
        assert self.page.evaluate(OVERLAPPING) == []
        self.picture(f"{name}-light")
        self.page.emulate_media(color_scheme="dark")
        # Nothing else depends on colors.
        assert self.serious_findings(["color-contrast"]) == [], "dark"
        self.picture(f"{name}-dark")
        self.page.emulate_media(color_scheme="light")
        with self.on_a_telephone():
            self.picture(f"{name}-380")
            assert self.needs_no_sideways_scrolling()
            assert self.page.evaluate(CUT_OFF) == []

    @contextmanager
    def on_a_telephone(self) -> Iterator[None]:
        """The page is as narrow as a small telephone meanwhile."""
        self.page.set_viewport_size({"width": TELEPHONE_WIDTH, "height": 800})
        try:
            yield
        finally:
            self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    def needs_no_sideways_scrolling(self) -> bool:
        """Whether the page is no wider than the window."""
        wider = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return bool(wider <= 0)


@pytest.fixture(scope="module")
def new_visitor(browser: Browser, stack: Connection) -> Iterator[Callable[[], Visitor]]:
    """Makes visitors with nothing in common."""
    contexts: list[BrowserContext] = []

    def make() -> Visitor:
        context = browser.new_context(
            timezone_id=ZONE, viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB"
        )
        contexts.append(context)
        return Visitor(context, stack.http)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def owner_of_all_tests(
    new_visitor: Callable[[], Visitor], stack: Connection, stack_home: Path
) -> Visitor:
    """The owner of the stack's first organization, signed in by a link."""
    visitor = new_visitor()
    visitor.sign_in(sign_in_token(stack, stack_home, first_organization_id(stack_home)))
    return visitor


@pytest.fixture
def owner(owner_of_all_tests: Visitor) -> Iterator[Visitor]:
    """The owner; what went wrong in the browser fails the test."""
    owner_of_all_tests.faults.clear()
    yield owner_of_all_tests
    assert owner_of_all_tests.faults == []


def sign_in_token(stack: Connection, home: Path, organization_id: str, email: str = "") -> str:
    """The token of a link for the organization's owner, or for the member with the email."""
    with grpc.insecure_channel(stack.grpc["accounts"]) as channel:
        request = members_pb2.CreateSignInLinkRequest(organization_id=organization_id, email=email)
        answer = members_pb2_grpc.MembersInternalServiceStub(channel).CreateSignInLink(
            request, timeout=REQUEST_TIMEOUT_S, metadata=internal_metadata(home)
        )
    return str(answer.token)


def new_organization_id(stack: Connection, home: Path, name: str) -> str:
    """Another organization."""
    with grpc.insecure_channel(stack.grpc["accounts"]) as channel:
        answer = accounts_pb2_grpc.AccountsInternalServiceStub(channel).CreateOrganization(
            accounts_pb2.CreateOrganizationRequest(name=name),
            timeout=REQUEST_TIMEOUT_S,
            metadata=internal_metadata(home),
        )
    return str(answer.organization.id)


def add_member(
    stack: Connection, organization_id: str, email: str, role: str, name: str = "Somebody"
) -> None:
    """A member with a role, put where accounts keeps them."""

    async def insert() -> None:
        connection = await asyncpg.connect(stack.databases["accounts"])
        try:
            await connection.execute(
                "INSERT INTO members (id, organization_id, email, name, role, create_time)"
                " VALUES ($1, $2, $3, $4, $5, $6)",
                ids.new_id("mem"),
                organization_id,
                email,
                name,
                role,
                clock.now(),
            )
        finally:
            await connection.close()

    # The browser's driver has an event loop in this thread.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, insert()).result()
