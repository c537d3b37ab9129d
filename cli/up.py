"""`usageflow up`: the whole stack in the foreground, until Ctrl-C."""

import asyncio
import contextlib
import signal
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cli.connection import Connection
from cli.errors import StackError
from cli.home import Home, Lock
from cli.running import Stack

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def up(home: Path, http_port: int, console: Console) -> int:
    """Run until a signal; the exit code: 0 after an orderly stop, 1 when it could not start."""
    stack_home = Home(home.resolve())

    def on_wait() -> None:
        console.print("waiting for the one that is stopping in this directory")

    try:
        with stack_home.locked(on_wait) as lock:
            asyncio.run(run(stack_home, http_port, console, lock))
    except (StackError, OSError) as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        return 1
    return 0


async def run(home: Home, http_port: int, console: Console, lock: Lock) -> None:
    """Start, show how to use it, wait for a signal, stop; a second signal stops at once."""
    stack = Stack(home, http_port, lambda part, what: show(console, part, what))
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            stack.kill()
            return
        stopping.set()
        lock.stopping()
        console.print("stopping (Ctrl-C again stops at once; the data stays)")

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        loop.add_signal_handler(signal.SIGHUP, on_signal)
    try:
        await start(stack, stopping, console)
        await stopping.wait()
    finally:
        stopping.set()
        await stack.stop()


async def start(stack: Stack, stopping: asyncio.Event, console: Console) -> None:
    """Start the stack and show how to use it, unless a signal comes first."""
    began = time.monotonic()
    starting = asyncio.create_task(stack.start())
    signalled = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return
    signalled.cancel()
    show_connection(console, starting.result(), stack.sign_in_url, time.monotonic() - began)


def show(console: Console, part: str, what: str) -> None:
    """One line of progress."""
    console.print(f"  [bold]{part:<14}[/bold] {escape(what)}", highlight=False)


def show_connection(
    console: Console, connection: Connection, sign_in_url: str, seconds: float
) -> None:
    """Where the stack is, its key, how the owner gets in, and a first event to paste."""
    command = (
        f"curl -s {connection.http}/api/track"
        f" -H 'x-usageflow-api-key: {connection.api_key}'"
        " -H 'Content-Type: application/json' -H 'Idempotency-Key: my-first-event'"
        """ -d '{"metric": "API_CALL", "amount": 1, "customerId": "user_123"}'"""
    )
    console.print(f"\n[green]UsageFlow is up[/green] ({seconds:.1f} s)", highlight=False)
    for line in (
        f"  URL      {connection.http}",
        f"  API key  {connection.api_key}",
        f"  Sign in  {sign_in_url}  (works once, for a day)",
        f"  Try      {command}",
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print("Ctrl-C stops it and keeps the data.\n")
