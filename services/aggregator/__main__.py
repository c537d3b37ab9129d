"""Runs aggregator: `python -m services.aggregator`."""

from services.aggregator.app import main
from services.kit.runtime import run

run(main)
