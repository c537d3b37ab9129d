"""Runs aggregator: `python -m services.aggregator`."""

import services.kit.lean_imports  # noqa: F401 - first
from services.aggregator.app import main
from services.kit.runtime import run

run(main)
