"""`python -m services.notifier`."""

from services.kit.runtime import run
from services.notifier.app import main

run(main)
