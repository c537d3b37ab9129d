"""What each process is started with."""

import pytest

from cli.errors import StackError
from cli.home import SERVICES
from cli.plan import (
    GATEWAY,
    PARTS,
    Process,
    Surroundings,
    addresses,
    command,
    parse_replicas,
    passed_on,
    process_names,
)

SURROUNDINGS = Surroundings(
    home="/home/me/.usageflow",
    nats_url="nats://u:p@127.0.0.1:4222",
    database_urls={service: f"postgresql://{service}" for service in SERVICES},
    internal_token="the-internal-token",
    key_pepper="the-pepper",
    webhook_secrets_key="the-secrets-key",
    payment_secrets_key="the-payments-key",
    parent_pipe_fd=9,
)


def processes(replicas: str = "") -> list[Process]:
    """The processes of a stack on ports from 20001."""
    names = process_names(parse_replicas(replicas))
    return [Process(name, part, 20001 + i) for i, (name, part) in enumerate(names)]


def environment(name: str, replicas: str = "", **environ: str) -> dict[str, str]:
    """The environment that the named process is started with."""
    everything = processes(replicas)
    process = next(each for each in everything if each.name == name)
    return dict(command(process, everything, SURROUNDINGS, environ).env)


def test_every_part_runs_once_unless_asked_for_more() -> None:
    """Without USAGEFLOW_REPLICAS there is one process a part."""
    assert [name for name, _ in process_names(parse_replicas(""))] == list(PARTS)


def test_replicas_have_names_of_their_own() -> None:
    """The second ingest is called ingest-2."""
    names = [name for name, part in process_names(parse_replicas("ingest=3, gateway=2"))]
    assert [name for name in names if name.startswith("ingest")] == [
        "ingest",
        "ingest-2",
        "ingest-3",
    ]
    assert names[-2:] == ["gateway", "gateway-2"]


@pytest.mark.parametrize("text", ["ingest", "ingest=", "ingest=0", "ingest=17", "digest=2", "=2"])
def test_replicas_that_make_no_sense_are_refused_by_name(text: str) -> None:
    """The message shows the entry that is wrong."""
    with pytest.raises(StackError, match=f"USAGEFLOW_REPLICAS: '{text}'"):
        parse_replicas(text)


def test_clients_of_one_process_get_its_address() -> None:
    """host:port, nothing around it."""
    assert addresses(processes(), "accounts") == "127.0.0.1:20001"


def test_clients_of_replicas_get_all_their_addresses() -> None:
    """In gRPC's form for several addresses, which every client balances over."""
    together = addresses(processes("ingest=2"), "ingest")
    assert together == "ipv4:127.0.0.1:20002,127.0.0.1:20003"
    assert environment(GATEWAY, "ingest=2")["USAGEFLOW_INGEST_ADDRESS"] == together


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_only_its_own_database(service: str) -> None:
    """No process knows the URL of another's database."""
    values = environment(service).values()
    assert [value for value in values if value.startswith("postgresql://")] == [
        f"postgresql://{service}"
    ]


def test_the_gateway_gets_no_database() -> None:
    """It has none."""
    assert "USAGEFLOW_DATABASE_URL" not in environment(GATEWAY)


@pytest.mark.parametrize("part", PARTS)
def test_only_accounts_gets_the_pepper(part: str) -> None:
    """It alone hashes keys."""
    assert ("the-pepper" in environment(part).values()) == (part == "accounts")


@pytest.mark.parametrize("part", PARTS)
def test_no_secret_is_in_the_command_line(part: str) -> None:
    """Everybody on the machine can read that."""
    everything = processes()
    process = next(each for each in everything if each.part == part)
    argv = " ".join(command(process, everything, SURROUNDINGS, {}).argv)
    assert "the-internal-token" not in argv
    assert "the-pepper" not in argv
    assert "the-secrets-key" not in argv


def test_settings_of_the_user_reach_every_process() -> None:
    """Any USAGEFLOW_ variable that the supervisor does not set itself."""
    assert environment("invoicer", USAGEFLOW_INVOICE_GRACE_S="5")["USAGEFLOW_INVOICE_GRACE_S"] == (
        "5"
    )


def test_settings_of_the_supervisor_can_not_be_overridden() -> None:
    """Else a stray variable of the shell would send a service to a stranger's database."""
    own = environment("ingest", USAGEFLOW_DATABASE_URL="postgresql://elsewhere")
    assert own["USAGEFLOW_DATABASE_URL"] == "postgresql://ingest"
    assert "USAGEFLOW_KEY_PEPPER" not in passed_on({"USAGEFLOW_KEY_PEPPER": "mine"})


def test_other_variables_of_the_shell_stay_out() -> None:
    """Secrets of other programs are none of ours."""
    kept = passed_on({"AWS_SECRET_ACCESS_KEY": "x", "PATH": "/bin"})
    assert kept["PATH"] == "/bin"
    assert "x" not in kept.values()


@pytest.mark.parametrize(
    ("user", "direct"),
    [({}, "127.0.0.1"), ({"NO_PROXY": "db.example.com"}, "db.example.com,127.0.0.1")],
)
def test_this_machine_is_never_looked_for_behind_a_proxy(user: dict[str, str], direct: str) -> None:
    """gRPC's clients would ask the proxy of http_proxy for 127.0.0.1."""
    kept = passed_on({"http_proxy": "http://proxy:3128", **user})
    assert kept["http_proxy"] == "http://proxy:3128"
    assert kept["no_proxy"] == kept["NO_PROXY"] == direct


def test_local_webhook_receivers_are_allowed_unless_the_user_says_otherwise() -> None:
    """A local stack is for development."""
    name = "USAGEFLOW_WEBHOOK_ALLOW_PRIVATE"
    assert environment("notifier")[name] == "true"
    assert environment("notifier", USAGEFLOW_WEBHOOK_ALLOW_PRIVATE="false")[name] == "false"


@pytest.mark.parametrize(
    ("name", "part", "value"),
    [
        ("USAGEFLOW_WEBHOOK_SECRETS_KEY", "notifier", "the-secrets-key"),
        ("USAGEFLOW_PAYMENT_SECRETS_KEY", "invoicer", "the-payments-key"),
    ],
)
def test_only_who_seals_secrets_gets_the_key(name: str, part: str, value: str) -> None:
    """Whoever has it and the database can sign, or charge, in everybody's name."""
    assert [each for each in PARTS if name in environment(each)] == [part]
    assert environment(part, **{name: "mine"})[name] == value


def test_ingest_gives_back_what_bursts_took_unless_the_user_says_otherwise() -> None:
    assert environment("ingest")["MALLOC_ARENA_MAX"] == "1"
    assert environment("ingest", MALLOC_ARENA_MAX="4")["MALLOC_ARENA_MAX"] == "4"
    assert "MALLOC_ARENA_MAX" not in environment("gateway")
