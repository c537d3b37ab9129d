"""`python -m services.notifier`."""

import services.kit.lean_imports  # noqa: F401 - first
from services.kit.runtime import run
from services.notifier.app import main

run(main)
