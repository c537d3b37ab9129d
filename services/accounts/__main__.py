"""`python -m services.accounts`."""

import services.kit.lean_imports  # noqa: F401 - first
from services.accounts.app import main
from services.kit.runtime import run

run(main)
