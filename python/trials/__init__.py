"""What the service does for training, and what it costs a step: `make methods`."""
