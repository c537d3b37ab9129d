"""The options of `usageflow webhooks`."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import StackError

app = typer.Typer(
    help="Webhooks: how endpoints are doing, send again, follow, listen.", no_args_is_help=True
)

HomeOption = Annotated[
    Path,
    typer.Option(
        envvar="USAGEFLOW_HOME",
        help="Of a stack that runs here; else USAGEFLOW_NOTIFIER_ADDRESS and USAGEFLOW_API_KEY.",
    ),
]
TimeOption = typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"])


class Scope(StrEnum):
    """What is replayed of an endpoint's time range."""

    FAILED = "failed"
    ALL = "all"
    MISSED = "missed"


@app.command("list")
def list_command(home: HomeOption = Path(".usageflow")) -> None:
    """Show every endpoint: its state, and what became of the deliveries of 24 hours."""
    from cli.webhooks import actions

    run(actions.list_endpoints(home, typer.echo))


@app.command("replay")
def replay_command(
    what: Annotated[str, typer.Argument(help="A delivery, whd_..., or an endpoint, whe_...")],
    scope: Annotated[Scope, typer.Option(help="What of an endpoint's.")] = Scope.FAILED,
    since: Annotated[datetime | None, TimeOption] = None,
    until: Annotated[datetime | None, TimeOption] = None,
    home: HomeOption = Path(".usageflow"),
) -> None:
    """Send one delivery again, or an endpoint's; the webhook-id stays the same."""
    from cli.webhooks import actions

    if what.startswith("whd_"):
        run(actions.replay_one(home, what, typer.echo))
    else:
        run(actions.replay_many(home, what, scope.value, since, until, typer.echo))


@app.command("tail")
def tail_command(
    endpoint: Annotated[str, typer.Option(help="Only of this endpoint, whe_...")] = "",
    home: HomeOption = Path(".usageflow"),
) -> None:
    """Follow deliveries as they are made and attempted, until Ctrl-C."""
    from cli.webhooks import actions

    run(actions.tail(home, endpoint, typer.echo))


@app.command("listen")
def listen_command(
    forward_to: Annotated[str, typer.Option(help="Where to post, http://127.0.0.1:3000/hooks.")],
    event: Annotated[
        list[str] | None, typer.Option(help="An event type or invoice.*; repeatable; else all.")
    ] = None,
    home: HomeOption = Path(".usageflow"),
) -> None:
    """Get a test-mode organization's events on this machine, without a public URL."""
    from cli.webhooks.listen import listen

    run(listen(home, forward_to, event or [], typer.echo))


def run(operation: Coroutine[Any, Any, None]) -> None:
    """Run to the end; a problem becomes a sentence and exit code 1, Ctrl-C an ordinary end."""
    try:
        asyncio.run(operation)
    except KeyboardInterrupt:
        return
    except StackError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
