"""Reverb, which serves random draws to trainers: one item an entry, a uniform sampler."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from .cases import ANCHORS
from .clustered import Clustered

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TABLE = "entries"
# What a draw costs does not depend on how many there are, and writing them one by one takes minutes.
ENTRIES = 16_384
UNCONFIRMED = 200
IN_FLIGHT = 256


class Reverb:
    """A server in a process of its own, read with TensorFlow's pipeline, as Reverb's manual advises."""

    name = "Reverb 0.14.0 (TimestepDataset)"

    def __init__(self, data: Clustered, k: int) -> None:
        import reverb
        import tensorflow as tf

        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.threading.set_intra_op_parallelism_threads(1)
        rows = data.rows[:ENTRIES]
        command = [sys.executable, "-m", "peers.replay_server", *map(str, rows.shape)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.server = subprocess.Popen(command, text=True, **pipes)
        address = f"localhost:{int(self.server.stdout.readline())}"
        with reverb.Client(address).trajectory_writer(num_keep_alive_refs=1) as writer:
            for number, row in enumerate(rows):
                writer.append({"v": row})
                writer.create_item(TABLE, 1.0, {"v": writer.history["v"][-1]})
                if number % 100 == 99:
                    writer.flush(block_until_num_items=UNCONFIRMED)
        items = reverb.TimestepDataset.from_table_signature(
            address, TABLE, max_in_flight_samples_per_worker=IN_FLIGHT, num_workers_per_iterator=1
        )
        self.batches = items.map(lambda item: item.data["v"]).batch(ANCHORS * k).as_numpy_iterator()

    def random(self) -> np.ndarray:
        """The next batch: [B * k, d]."""
        return next(self.batches)

    def forget(self) -> None:
        """Takes what the pipeline drew while others were measured: no clock saw that."""
        for _ in range(2):
            self.random()

    def close(self) -> None:
        """Stops the server."""
        del self.batches
        self.server.stdin.close()
        self.server.wait()
