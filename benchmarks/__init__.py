"""Benchmarks of QueueCTL beside what it is measured against: `python -m benchmarks --help`."""
