"""docker-compose.yml and deploy/Dockerfile: what they say, and that what they start works."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cli.plan import PARTS
from tests.e2e.api import Api
from tests.e2e.compose import (
    ROOT,
    VARIABLE,
    Project,
    dockerfile,
    install_image,
    made_environment,
    read_compose,
)

SERVERS = {"postgres", "nats"}
ONCE = {"databases"}
SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|PEPPER|API_KEY", re.IGNORECASE)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What deploy/make-env made."""
    return made_environment(tmp_path_factory.mktemp("env"))


@pytest.fixture(scope="module")
def services(environment: dict[str, str]) -> dict[str, Any]:
    """The services of docker-compose.yml by name."""
    return dict(read_compose(environment)["services"])


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed in the image."""
    return install_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def project(
    environment: dict[str, str], packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """Everything in docker-compose.yml, running and healthy."""
    directory = tmp_path_factory.mktemp("compose")
    with Project(read_compose(environment), directory, packages) as running:
        yield running


def test_every_part_is_there_and_nothing_else(services: dict[str, Any]) -> None:
    assert set(services) == {*PARTS, *SERVERS, *ONCE}


def test_everything_that_keeps_running_has_a_health_check_and_is_restarted(
    services: dict[str, Any],
) -> None:
    for name in services.keys() - ONCE:
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
        assert services[name]["restart"] == "unless-stopped", name


def test_only_the_gateway_is_published_and_only_on_this_machine(services: dict[str, Any]) -> None:
    assert {name: s["ports"] for name, s in services.items() if "ports" in s} == {
        "gateway": ["127.0.0.1:8080:8080"]
    }
    assert all("network_mode" not in service for service in services.values())


def test_parts_share_one_image_and_have_few_rights(services: dict[str, Any]) -> None:
    ours = [services[name] for name in services.keys() - SERVERS]
    assert len({service["image"] for service in ours}) == 1
    for service in ours:
        assert service["build"]["dockerfile"] == "deploy/Dockerfile"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_variable_is_required_or_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    kinds: dict[str, set[str | None]] = {}
    for match in VARIABLE.finditer(text):
        kinds.setdefault(match["name"], set()).add(match["kind"])
    assert [name for name, seen in kinds.items() if not seen & {"?", "-"}] == []
    # A secret without a value must stop compose; a default would be a secret in git.
    assert [name for name, seen in kinds.items() if SECRET.search(name) and "-" in seen] == []


def test_secrets_come_from_the_environment_only() -> None:
    for name, service in yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
        "services"
    ].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) or "://" in value:
                assert VARIABLE.search(value), f"{name}: {variable}"
        assert not VARIABLE.search(" ".join(service["command"])), f"{name}: argv is no secret place"


def test_each_part_knows_only_its_own_secrets(
    services: dict[str, Any], environment: dict[str, str]
) -> None:
    def who_knows(variable: str) -> set[str]:
        return {name for name in services if environment[variable] in str(services[name])}

    assert who_knows("KEY_PEPPER") == {"accounts"}
    assert who_knows("WEBHOOK_SECRETS_KEY") == {"notifier"}
    assert who_knows("PAYMENT_SECRETS_KEY") == {"invoicer"}
    assert who_knows("POSTGRES_PASSWORD") == {"postgres", "databases"}
    for part in set(PARTS) - {"gateway"}:
        assert who_knows(f"{part.upper()}_DATABASE_PASSWORD") == {part, "databases"}


def test_made_secrets_are_long_and_differ(environment: dict[str, str]) -> None:
    assert len(set(environment.values())) == len(environment) == 11
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in environment.values())


def test_missing_secret_is_named(environment: dict[str, str]) -> None:
    for name in environment:
        with pytest.raises(KeyError, match=name):
            read_compose({**environment, name: ""})


def test_image_runs_as_nobody_special() -> None:
    instructions = dockerfile()
    last_stage = instructions[
        max(n for n, (what, _) in enumerate(instructions) if what == "FROM") :
    ]
    users = [rest for what, rest in last_stage if what == "USER"]
    assert users == ["10001"]
    assert last_stage.index(("USER", "10001")) < [what for what, _ in last_stage].index("CMD")


def test_image_installs_pinned_and_hashed_packages_and_holds_no_secret() -> None:
    installs = [part for what, rest in dockerfile() if what == "RUN" for part in rest.split("&&")]
    installs = [part.strip() for part in installs if "pip install" in part]
    assert installs == [
        "pip install --require-hashes -r /build/requirements/run.txt",
        "pip install --no-deps --no-build-isolation /build",
    ]
    requirements = (ROOT / "requirements" / "run.txt").read_text().replace("\\\n", " ")
    for line in filter(None, map(str.strip, requirements.splitlines())):
        assert line.startswith("#") or ("==" in line and "--hash=sha256:" in line), line
    assert [
        rest for what, rest in dockerfile() if what in {"ENV", "ARG"} and SECRET.search(rest)
    ] == []


def test_image_holds_every_source_file(packages: Path) -> None:
    wanted = {
        str(path.relative_to(ROOT))
        for part in ("services", "gateway", "cli")
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    installed = {str(path.relative_to(packages)) for path in packages.rglob("*")}
    assert wanted - installed == set()
    assert (packages / "usageflow" / "ingest").is_dir()


def test_event_is_counted_by_what_compose_starts(project: Project) -> None:
    made = project.run("gateway", "usageflow", "create-organization", "My company")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("uf_test_")
    api = Api(project.url("gateway", 8080), made.stdout.strip())
    answers = [api.track("compose-1", customerId="user_123") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert "idempotent-replayed" in answers[1].headers
    api.await_usage("1", customerId="user_123")


def test_live_key_is_made_on_request(project: Project) -> None:
    made = project.run("gateway", "usageflow", "create-organization", "--live", "My company")
    assert made.stdout.startswith("uf_live_"), made.stderr


def test_an_owner_signs_in_by_a_link_that_is_made_on_request(project: Project) -> None:
    made = project.run("gateway", "usageflow", "create-organization", "My company")
    organization_id = made.stderr.split()[0]
    link = project.run("gateway", "usageflow", "create-sign-in-link", organization_id)
    assert link.returncode == 0, link.stderr
    token = link.stdout.strip().removeprefix("/sign-in?token=")
    url = project.url("gateway", 8080)
    with httpx.Client(base_url=url, trust_env=False) as browser:
        assert browser.post("/sign-in", data={"token": token}).status_code == 303
        assert browser.get("/api/members").json()["data"][0]["role"] == "OWNER"
    nobody = ("--email", "nobody@example.com")
    refused = project.run("gateway", "usageflow", "create-sign-in-link", organization_id, *nobody)
    assert refused.returncode == 1
    assert "No such member" in refused.stderr


def test_organization_without_a_name_is_an_error_in_a_sentence(project: Project) -> None:
    made = project.run("gateway", "usageflow", "create-organization", "")
    assert made.returncode == 1
    assert "Traceback" not in made.stderr
    assert made.stderr.startswith("error: ")
    assert made.stdout == ""


def test_databases_may_be_made_again(project: Project) -> None:
    done = project.run("databases", *project.services["databases"]["command"])
    assert done.returncode == 0, done.stderr


def test_metrics_are_served_on_the_internal_port(project: Project) -> None:
    for part in PARTS:
        answer = httpx.get(project.url(part, 9464) + "/metrics", trust_env=False)
        assert "python_info" in answer.text, part
