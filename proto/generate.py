"""Writes the Python stubs of proto/ to a folder (default gen/): `make proto`.

A test writes them to an empty folder and compares, so that gen/ is never stale.
"""

import importlib.resources
import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent


def generate(target: Path) -> None:
    """Replace what stands in `target` by stubs for every .proto file."""
    shutil.rmtree(target / "usageflow", ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    # Of this interpreter's environment, whether or not that is on the PATH.
    programs = Path(sys.executable).parent
    plugins = [
        f"--plugin=protoc-gen-{kind}={programs / f'protoc-gen-{kind}'}"
        for kind in ("mypy", "mypy_grpc")
    ]
    code = protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", *plugins, *outputs, *sources])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO.parent / "gen")
