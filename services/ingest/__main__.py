"""`python -m services.ingest`."""

from services.ingest.app import main
from services.kit.runtime import run

run(main)
