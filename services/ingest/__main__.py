"""`python -m services.ingest`."""

import services.kit.lean_imports  # noqa: F401 - first
from services.ingest.app import main
from services.kit.runtime import run

run(main)
