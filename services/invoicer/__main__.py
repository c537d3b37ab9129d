"""`python -m services.invoicer`."""

import services.kit.lean_imports  # noqa: F401 - first
from services.invoicer.app import main
from services.kit.runtime import run

run(main)
