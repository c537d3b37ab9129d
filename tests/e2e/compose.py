"""docker-compose.yml run without Docker: the same commands with the same environment, as processes.

What is exchanged, and nothing else: host names and ports by free ports of 127.0.0.1; the images
of PostgreSQL and NATS by the embedded servers, with the options and files that compose gives them;
our own image by an installation of what deploy/Dockerfile copies.
"""

import graphlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from cli.children import Child, Command, launched, log_tail, spawn
from cli.embedded import EmbeddedPostgres, nats_program, postgres_program, wal_compression
from cli.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
HEALTHY_S_MAX = 60.0
COMMAND_S_MAX = 60.0
INSTALL_S_MAX = 120.0
STOP_S_MAX = 25.0
POLL_S = 0.2

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<rest>[^}]*))?\}")


def read_compose(environ: Mapping[str, str]) -> dict[str, Any]:
    """docker-compose.yml with its variables put in; KeyError names a required one that is missing.

    https://docs.docker.com/reference/compose-file/interpolation/
    """
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(interpolate(document, environ))


def interpolate(value: Any, environ: Mapping[str, str]) -> Any:
    """`value` with ${NAME}, ${NAME:-default} and ${NAME:?problem} in its texts replaced."""

    def replacement(match: re.Match[str]) -> str:
        name, kind, rest = match.group("name", "kind", "rest")
        if found := environ.get(name):
            return found
        if kind == "?":
            raise KeyError(name)
        return rest if kind == "-" else ""

    match value:
        case str():
            return VARIABLE.sub(replacement, value)
        case dict():
            return {key: interpolate(item, environ) for key, item in value.items()}
        case list():
            return [interpolate(item, environ) for item in value]
        case _:
            return value


def made_environment(directory: Path) -> dict[str, str]:
    """What deploy/make-env writes to .env."""
    (directory / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "make-env", directory / "deploy")
    shutil.copy(ROOT / "docker-compose.yml", directory)
    for _ in range(2):  # the second run has nothing to add
        subprocess.run([directory / "deploy" / "make-env"], check=True, timeout=COMMAND_S_MAX)
    lines = (directory / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def dockerfile() -> list[tuple[str, str]]:
    """deploy/Dockerfile as (instruction, rest), comments dropped and lines joined."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, rest = line.partition(" ")
        found.append((instruction.upper(), " ".join(rest.split())))
    return found


def install_image(directory: Path) -> Path:
    """Install what the Dockerfile copies, as it does, and nothing else; the packages' directory."""
    context, packages = directory / "build", directory / "packages"
    for instruction, rest in dockerfile():
        if instruction == "COPY" and not rest.startswith("--from"):
            *what, target = shlex.split(rest)
            for name in what:
                copy(ROOT / name, context / Path(target).relative_to("/build"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", packages, context], check=True, timeout=INSTALL_S_MAX)
    return packages


def copy(source: Path, target: Path) -> None:
    """COPY of one file into a directory, or of a directory's content."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


@dataclass
class Ports:
    """Where each service's port is on this machine."""

    names: frozenset[str]
    taken: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, service: str, port: str | int) -> int:
        """The free port that stands for this service's `port`."""
        key = (service, str(port))
        if key not in self.taken:
            self.taken[key] = free_port(frozenset(self.taken.values()))
        return self.taken[key]

    def local(self, service: str, text: str) -> str:
        """`text` of a service's definition with each host:port replaced by one of 127.0.0.1.

        A host stands at the beginning, after "//" or after the "@" of a URL.
        """

        def replacement(match: re.Match[str]) -> str:
            host, port = match.groups()
            return f"127.0.0.1:{self.of(host if host in self.names else service, port)}"

        hosts = "|".join([*map(re.escape, sorted(self.names)), r"0\.0\.0\.0", r"127\.0\.0\.1"])
        return re.sub(rf"(?:^|(?<=@)|(?<=//))({hosts}):(\d+)(?=/|$)", replacement, text)


class Project:
    """A running docker-compose.yml. Use it in a `with` block, which stops everything."""

    def __init__(self, compose: dict[str, Any], directory: Path, packages: Path) -> None:
        self.services: dict[str, dict[str, Any]] = compose["services"]
        self.ports = Ports(frozenset(self.services))
        self._directory = directory
        self._packages = packages
        self._children: dict[str, Child] = {}

    def __enter__(self) -> "Project":
        order = graphlib.TopologicalSorter(
            {name: service.get("depends_on", {}) for name, service in self.services.items()}
        )
        order.prepare()
        try:
            while order.is_active():
                names = order.get_ready()
                self._children.update({name: self._start(name) for name in names})
                for name in names:
                    self._await(name)
                order.done(*names)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop everything, the servers last."""
        servers = {"postgres": signal.SIGINT, "nats": signal.SIGTERM}
        for name in self._children.keys() - servers:
            self._children[name].popen.terminate()
        for name in sorted(self._children, key=lambda name: name in servers):
            self._children[name].stop(servers.get(name, signal.SIGTERM), STOP_S_MAX)

    def url(self, service: str, port: int) -> str:
        """Where a service's HTTP port is on this machine."""
        return f"http://127.0.0.1:{self.ports.of(service, port)}"

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """`docker compose exec SERVICE COMMAND`."""
        return subprocess.run(
            command,
            env=self._environment(service),
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )

    def _start(self, name: str) -> Child:
        if name == "postgres":
            return self._start_postgres()
        if name == "nats":
            return self._start_nats()
        return self._spawn(name, self.services[name]["command"], self._environment(name))

    def _await(self, name: str) -> None:
        """Wait until a service is healthy; of one that only makes something: until it has."""
        child = self._children[name]
        if self.services[name]["healthcheck"].get("disable"):
            code = child.popen.wait(COMMAND_S_MAX)
            assert code == 0, f"{name} ended with {code}:\n{log_tail(child.log)}"
        else:
            self._await_health(name, child)

    def _await_health(self, name: str, child: Child) -> None:
        deadline_s = time.monotonic() + HEALTHY_S_MAX
        while (problem := self._health_problem(name)) is not None:
            assert child.running, f"{name} has ended:\n{log_tail(child.log)}"
            assert time.monotonic() < deadline_s, f"{name}: {problem}\n{log_tail(child.log)}"
            time.sleep(POLL_S)

    def _health_problem(self, name: str) -> str | None:
        """What the service's own health check says; None: it is healthy."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        if test[0] == "wget":  # of the NATS image; the same question is asked here
            try:
                answer = httpx.get(self.ports.local(name, test[-1]), trust_env=False)
            except httpx.TransportError as error:
                return repr(error)
            return None if answer.is_success else answer.text
        if not self._listens(name):
            return "nothing listens"
        done = self.run(name, *test)
        return None if done.returncode == 0 else done.stdout + done.stderr

    def _listens(self, name: str) -> bool:
        """Whether asking makes sense: to ask is to start Python, which slows what is starting."""
        environment = self._environment(name)
        listen = environment.get("USAGEFLOW_HTTP_LISTEN", environment.get("USAGEFLOW_GRPC_LISTEN"))
        if listen is None:
            return True
        host, port = listen.rsplit(":", 1)
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def _environment(self, name: str) -> dict[str, str]:
        """The service's environment, and a container's: what its image has on the PATH."""
        own = {
            key: self.ports.local(name, str(value))
            for key, value in self.services[name].get("environment", {}).items()
        }
        if name == "postgres":
            # What pg_isready asks without a --port.
            own["PGPORT"] = str(self.ports.of("postgres", 5432))
            programs = postgres_program("psql").parent
        else:
            programs = Path(sys.executable).parent
        path = f"{programs}{os.pathsep}{os.defpath}"
        return {"PATH": path, "PYTHONPATH": str(self._packages), **own}

    def _start_postgres(self) -> Child:
        service = self.services["postgres"]
        options = [option for option in service["command"] if option.startswith("-c")]
        settings = dict(option.removeprefix("-c").split("=", 1) for option in options)
        settings["wal_compression"] = wal_compression()  # the wheel may be built without lz4
        server = EmbeddedPostgres(
            directory=self._directory / "postgres",
            port=self.ports.of("postgres", 5432),
            password=service["environment"]["POSTGRES_PASSWORD"],
            log=self._directory / "postgres.log",
            settings=settings,
        )
        server.prepare()
        return server.start()

    def _start_nats(self) -> Child:
        service = self.services["nats"]
        mounts = dict(volume.split(":")[1::-1] for volume in service["volumes"])
        argv = [self._mounted(mounts, argument) for argument in service["command"]]
        for option, port in {"--port": 4222, "--http_port": 8222}.items():
            argv += [option, str(self.ports.of("nats", port))]
        argv += ["--addr", "127.0.0.1"]
        return self._spawn("nats", [str(nats_program()), *argv], service["environment"])

    def _mounted(self, mounts: Mapping[str, str], argument: str) -> str:
        """Where a path of the container is here: a file of ours, or a volume."""
        source = mounts.get(argument)
        if source is None:
            return argument
        return str(ROOT / source if source.startswith(".") else self._directory / source)

    def _spawn(self, name: str, argv: list[str], environment: Mapping[str, str]) -> Child:
        program = shutil.which(argv[0], path=environment.get("PATH"))
        assert program is not None, f"{name}: no program {argv[0]}"
        command = launched([program, *argv[1:]], death_signal=signal.SIGTERM)
        log = self._directory / f"{name}.log"
        return spawn(name, Command(command, environment, cwd=self._directory), log)
