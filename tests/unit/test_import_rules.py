"""Which part may import which, and where no float may stand: read from the source, file by file."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("accounts", "ingest", "aggregator", "invoicer", "notifier")
OWN_PACKAGES = {"benchmarks", "cli", "gateway", "services", "tests", "usageflow"}
GENERATED = "usageflow"
KIT = "services.kit"

# Directory -> what its files may import of this repository. The generated stubs of all services
# are open to everybody; a service's own code is open to itself only.
ALLOWED = {
    "services/kit": (KIT, GENERATED),
    **{f"services/{name}": (f"services.{name}", KIT, GENERATED) for name in SERVICES},
    "gateway": ("gateway", KIT, GENERATED),
    "cli": ("cli", KIT, GENERATED),
}
# Where quantities and money pass through. A float may stand there for a duration only, which its
# name tells: `timeout_s`, `RETRY_AFTER_S_DEFAULT`, `call_s_max`, `seconds`.
BILLING = ("services/ingest", "services/aggregator", "services/invoicer", "gateway")
DURATION = re.compile(r"(^|_)(s|ms|seconds)(_(max|min|default))*$", re.IGNORECASE)
NO_AMOUNTS = {"DRAIN_SHARE"}  # a share of the time that a stop may take
# Keywords that say nothing about what they bound: the name around them counts.
BOUNDS = {"default", "ge", "gt", "le", "lt"}


def sources(directory: str) -> Iterator[Path]:
    return iter(sorted((ROOT / directory).rglob("*.py")))


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module imported; `package` is what relative imports start at."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: -node.level + 1 or None] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # `from services import ingest` names a package, as `import services.ingest` does.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def forbidden_imports(source: str, package: str, allowed: tuple[str, ...]) -> list[str]:
    """ "line: module" of every import of this repository's code that is not in `allowed`."""
    return [
        f"{line}: {module}"
        for line, module in imported(ast.parse(source), package)
        if module.split(".")[0] in OWN_PACKAGES
        and not any(module == name or module.startswith(name + ".") for name in allowed)
    ]


def floats(source: str) -> list[str]:
    """ "line: code" of every float() call, literal and annotation that is no duration by name."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    results = [
        each.returns
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.returns
    ]
    # `-> float` is judged by the function's name; what stands in `-> list[...]` has none.
    nameless = {part for result in results for part in ast.walk(result) if part is not result}
    return [
        f"{node.lineno}: {ast.unparse(parents[node])}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Constant) and is_float(node)
        if node not in nameless and not may_be_float(name_around(node, parents))
    ]


def may_be_float(name: str) -> bool:
    return name in NO_AMOUNTS or DURATION.search(name) is not None


def is_float(node: ast.Name | ast.Constant) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    return node.id == "float"


def name_around(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    """The name that the value goes by: of its variable, argument or keyword; else its function's.

    For float(age_s) that is the argument's own.
    """
    while node in parents:
        child, node = node, parents[node]
        match node:
            case ast.Call(func=ast.Name(id="float"), args=[ast.Name(id=name)]):
                return name
            case ast.keyword(arg=str(name)) if name not in BOUNDS:
                return name
            case ast.arg(arg=name):
                return name
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
                return ast.unparse(target)
            case ast.arguments():
                return argument_of_default(node, child)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                return name
            case _:
                pass
    return ""


def argument_of_default(arguments: ast.arguments, default: ast.AST) -> str:
    """The name of the argument whose default this is."""
    plain = [*arguments.posonlyargs, *arguments.args]
    with_default = plain[len(plain) - len(arguments.defaults) :]
    pairs = [
        *zip(with_default, arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return next(argument.arg for argument, value in pairs if value is default)


@pytest.mark.parametrize("directory", ALLOWED)
def test_part_imports_only_what_it_may(directory: str) -> None:
    problems = []
    for path in sources(directory):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        found = forbidden_imports(path.read_text(), package, ALLOWED[directory])
        problems += [f"{path.relative_to(ROOT)}:{problem}" for problem in found]
    assert problems == []


@pytest.mark.parametrize("directory", BILLING)
def test_no_quantity_or_amount_is_a_float(directory: str) -> None:
    problems = [
        f"{path.relative_to(ROOT)}:{problem}"
        for path in sources(directory)
        for problem in floats(path.read_text())
    ]
    assert problems == [], "use Decimal, or name a duration with its unit: _s, _ms"


def test_every_service_is_under_a_rule() -> None:
    packages = {path.parent.name for path in (ROOT / "services").glob("*/__init__.py")}
    assert packages == {*SERVICES, "kit"}


@pytest.mark.parametrize(
    "line",
    [
        "import services.invoicer.domain",
        "from services import invoicer",
        "from services.invoicer import domain",
        "from services.invoicer.domain import Plan",
        "from ..invoicer import domain",
        "from .. import invoicer",
        "import gateway.app",
        "def f():\n    import cli.stack",
        "from tests import tools",
    ],
)
def test_import_of_another_part_is_found(line: str) -> None:
    assert forbidden_imports(line, "services.ingest", ALLOWED["services/ingest"])


@pytest.mark.parametrize(
    "line",
    [
        "from services.ingest.domain import Event",
        "from services.kit import clock",
        "from . import domain",
        "from .domain import Event",
        "from usageflow.ingest.v1 import ingest_pb2",
        "import json",
        "import services_of_somebody_else",
    ],
)
def test_other_imports_are_let_through(line: str) -> None:
    assert forbidden_imports(line, "services.ingest", ALLOWED["services/ingest"]) == []


@pytest.mark.parametrize(
    "line",
    [
        "amount = 0.1",
        "amount = float(text)",
        "amount: float",
        "def price(quantity: float) -> None: ...",
        "def price(quantity=1.5) -> None: ...",
        "def price() -> float: ...",
        "price(quantity=1.5)",
        "charge(1.5)",
        "prices = Field(default=0.5)",
        "amounts = map(float, texts)",
        "rows = [float(row.value) for row in found]",
    ],
)
def test_float_without_a_unit_of_time_is_found(line: str) -> None:
    assert floats(line)


@pytest.mark.parametrize(
    "line",
    [
        "TIMEOUT_S = 0.5",
        "RETRY_AFTER_S_DEFAULT: Final = 1.0",
        "poll_s: float = Field(default=1.0, gt=0.5)",
        "self._seen_s = float('-inf')",
        "def wait(timeout_s: float = 0.5) -> None: ...",
        "def wait(*, timeout_ms: float = 0.5) -> None: ...",
        "OverloadedError('wait', retry_after_s=1.0)",
        "ages = [float(age_s) for age_s in rows]",
        "def lag_s() -> float: ...",
        "def lags() -> list[tuple[str, float]]: ...",
        "amount = Decimal('0.1')",
    ],
)
def test_durations_may_be_floats(line: str) -> None:
    assert floats(line) == []


def test_the_gateway_holds_no_database_library_in_memory() -> None:
    """SQLAlchemy alone is a fifth of what a gateway needs."""
    look = "import gateway.app, sys; print({'sqlalchemy', 'asyncpg', 'alembic'} & {*sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("module", ["gateway", *(f"services.{name}" for name in SERVICES)])
def test_a_process_leaves_out_what_its_libraries_would_like_to_have(module: str) -> None:
    """An eighth of the memory of each. The process ends at once: it has no settings."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module],
        capture_output=True,
        text=True,
        check=False,
        env={},
        cwd=ROOT,
        timeout=60,
    )
    assert "ValidationError" in run.stderr
    lines = (line for line in run.stderr.splitlines() if line.startswith("import time:"))
    found = {line.rpartition("|")[2].strip() for line in lines}
    assert {"structlog.dev", "nats.aio.client"} <= found
    assert not {"rich._extension", "aiohttp.hdrs"} & found
