"""Measures what metrics, logs and traces cost sampling; run as `python -m telemetry_bench`."""
