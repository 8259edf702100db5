"""Benchmarks of QueueCTL beside its baselines: `python -m benchmarks`; see docs/performance.md."""
