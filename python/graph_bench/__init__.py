"""Measures what the graph of a large keyed bank costs and brings; run as `python -m graph_bench`."""
