"""negbank beside other programs that find negatives, on the same data in the same run. `make bench-peers`."""
