"""A Reverb server in a process of its own: prints its port, and ends with its standard input."""

from __future__ import annotations

import sys

import reverb
import tensorflow as tf

TABLE = "entries"


def main() -> None:
    """Serves one table of `entries` vectors of `dim` floats, drawn uniformly."""
    entries, dim = map(int, sys.argv[1:])
    table = reverb.Table(
        TABLE,
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=entries,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature={"v": tf.TensorSpec([dim], tf.float32)},
    )
    server = reverb.Server([table])
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
