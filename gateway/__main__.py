"""python -m gateway"""

from gateway.app import main
from services.kit.runtime import run

run(main)
