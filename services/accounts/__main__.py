"""`python -m services.accounts`."""

from services.accounts.app import main
from services.kit.runtime import run

run(main)
