"""`python -m services.invoicer`."""

from services.invoicer.app import main
from services.kit.runtime import run

run(main)
