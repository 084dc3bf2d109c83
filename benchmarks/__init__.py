"""What flyteauth costs, and what it withstands: ``python -m benchmarks``."""
