"""gen/ is what proto/ says."""

import subprocess
import sys
from pathlib import Path

from tests.tools import require_module

ROOT = Path(__file__).resolve().parents[2]
GENERATE_S_MAX = 60


def stubs(directory: Path) -> dict[str, bytes]:
    """Content by path of every generated file."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*.py*")
        if path.suffix in {".py", ".pyi"}
    }


def test_committed_stubs_are_those_that_make_proto_writes(tmp_path: Path) -> None:
    require_module("grpc_tools")
    subprocess.run(
        [sys.executable, str(ROOT / "proto" / "generate.py"), str(tmp_path)],
        check=True,
        timeout=GENERATE_S_MAX,
    )
    generated, committed = stubs(tmp_path), stubs(ROOT / "gen")
    assert generated.keys() == committed.keys()
    stale = [path for path, content in generated.items() if committed[path] != content]
    assert stale == [], "run `make proto`"
