"""python -m gateway"""

import services.kit.lean_imports  # noqa: F401 - first
from gateway.app import main
from services.kit.runtime import run

run(main)
