"""Starts a stack of its own for the demo, plays it, and says how it went."""

import shutil
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape
from standardwebhooks import WebhookVerificationError

from cli.demo import Demo, WrongFigureError
from cli.errors import StackError
from cli.home import Home
from cli.stack import running_stack

# The demo's month is over and nobody sends late events: invoices need not wait for any.
DEMO_ENVIRON = {"USAGEFLOW_INVOICE_GRACE_S": "0"}


def play(home: Path, http_port: int | None) -> int:
    """Run the demo on a new stack in `home`; what an earlier demo left there goes first.

    Returns the exit code: 0 only if every figure was right.
    """
    console = Console(highlight=False)
    started_s = time.perf_counter()
    try:
        clear(home)
        console.print("starting PostgreSQL, NATS, five services and the gateway ..")
        with running_stack(home, http_port=http_port, environ=DEMO_ENVIRON) as connection:
            took_s = time.perf_counter() - started_s
            console.print(f"[green]✓[/green] they answer at {connection.http} [dim]{took_s:.1f} s")
            Demo(connection.http, connection.api_key, console).play()
    except (StackError, WrongFigureError, WebhookVerificationError, httpx.HTTPError) as error:
        console.print(f"[red]✗ {escape(str(error) or repr(error))}")
        console.print(f"what each process said: {home / 'logs'}")
        return 1
    total_s = time.perf_counter() - started_s
    console.print(f"[bold green]every figure is right[/bold green] [dim]{total_s:.1f} s in all")
    return 0


def clear(home: Path) -> None:
    """Delete what an earlier demo left; StackError when one runs, or if it is something else."""
    if not home.exists() or not any(home.iterdir()):
        return
    if not (home / "lock").exists():
        raise StackError(f"{home} is not a demo's directory: choose another with USAGEFLOW_HOME")
    with Home(home.resolve()).locked(lambda: None):
        for entry in home.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
