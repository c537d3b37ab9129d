"""The `usageflow` command."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cli.auditing.command import app as audits
from cli.errors import NotReadyError, StackError
from cli.importing.command import import_events
from cli.plan import PARTS, module
from cli.simulating.command import simulate
from cli.webhooks.command import app as webhooks

Result = TypeVar("Result")

app = typer.Typer(
    help="UsageFlow: usage metering and billing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(audits, name="audit")
app.add_typer(webhooks, name="webhooks")

HomeOption = Annotated[
    Path, typer.Option(envvar="USAGEFLOW_HOME", help="Where data, secrets and logs are kept.")
]
HttpPortOption = Annotated[
    int, typer.Option(envvar="USAGEFLOW_HTTP_PORT", min=1, max=65535, help="Port of the HTTP API.")
]
StopWithParentOption = Annotated[
    bool, typer.Option("--stop-with-parent", hidden=True, help="Stop when the caller has died.")
]


@app.command()
def up(
    home: HomeOption = Path(".usageflow"),
    http_port: HttpPortOption = 8080,
    stop_with_parent: StopWithParentOption = False,
) -> None:
    """Run the whole stack here: PostgreSQL, NATS, every service and the gateway."""
    # Imported here so that the other commands need not wait for it.
    from rich.console import Console

    from cli.launcher import stop_with_parent as watch_parent
    from cli.up import up as run_up

    if stop_with_parent:
        watch_parent()
    raise typer.Exit(run_up(home, http_port, Console()))


@app.command()
def demo(
    home: HomeOption = Path(".usageflow"),
    http_port: Annotated[
        int | None, typer.Option(envvar="USAGEFLOW_HTTP_PORT", min=1, max=65535)
    ] = None,
    stop_with_parent: StopWithParentOption = False,
) -> None:
    """Run a new stack in HOME/demo, play the whole billing flow on it, and check every figure."""
    from cli.launcher import stop_with_parent as watch_parent
    from cli.play import play

    if stop_with_parent:
        watch_parent()
    raise typer.Exit(play(home / "demo", http_port))


@app.command()
def service(name: Annotated[str, typer.Argument(help=f"One of: {', '.join(PARTS)}.")]) -> None:
    """Run one service, with its settings from USAGEFLOW_* environment variables."""
    if name not in PARTS:
        raise typer.BadParameter(f"{name!r} is not one of: {', '.join(PARTS)}")
    os.execv(sys.executable, [sys.executable, "-m", module(name)])  # noqa: S606 - no shell wanted


@app.command()
def health(
    ready: Annotated[
        bool, typer.Option("--ready", help="Not ready while its database is away, too.")
    ] = False,
) -> None:
    """Ask the service of this environment whether it lives; exit code 1 when it does not."""
    from cli.operations import check_health

    run(check_health(ready=ready))


@app.command("create-databases")
def create_databases() -> None:
    """Make what is missing of the services' databases and roles on a server of your own."""
    from cli import operations

    run(operations.create_databases())


@app.command("create-organization")
def create_organization(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    live: Annotated[bool, typer.Option("--live", help="A key that bills; else for tests.")] = False,
) -> None:
    """Make an organization and print its first API key, which is shown nowhere else."""
    from cli import operations

    mode = operations.Mode.LIVE if live else operations.Mode.TEST
    organization_id, api_key = run(operations.create_organization(name, mode))
    typer.echo(f"{organization_id} {name}; its API key:", err=True)
    typer.echo(api_key)


@app.command("create-sign-in-link")
def create_sign_in_link(
    organization_id: Annotated[str, typer.Argument(help="Its organization, org_...")],
    email: Annotated[
        str, typer.Option("--email", help="Whom it signs in; else the first owner.")
    ] = "",
) -> None:
    """Print a link that signs a member in, once, within a day."""
    from cli import operations

    typer.echo(run(operations.create_sign_in_link(organization_id, email)))


app.command("import")(import_events)
app.command()(simulate)


def run(operation: Coroutine[Any, Any, Result]) -> Result:
    """An operation's result; its problem becomes a sentence and exit code 1."""
    try:
        return asyncio.run(operation)
    except (NotReadyError, StackError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def main() -> None:
    """Entry of the console script."""
    app()
