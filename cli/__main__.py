"""`python -m cli` is `usageflow`."""

from cli.main import main

main()
