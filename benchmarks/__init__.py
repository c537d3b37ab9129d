"""How fast, how soon, how large: `make bench`, or `python -m benchmarks --only ROW`.

README.md says what each row is; rows/ has them, plan.py how long each takes.
"""
