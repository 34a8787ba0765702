"""What the servers are pressed with: the two loads, as messages that are encoded once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

PROTO = Path(__file__).parents[2] / "proto"
PATH = "/negbank.v1.Sampling/Sample"
BANK = "bench"
# Of each load so many different requests go round.
MESSAGES = 64


@dataclass(frozen=True)
class Load:
    """Uniform draws of `anchors` x `k` negatives, `in_flight` at once."""

    anchors: int
    k: int
    columns: tuple[str, ...]
    in_flight: int

    @property
    def negatives(self) -> int:
        """Of a call."""
        return self.anchors * self.k

    def messages(self) -> list[bytes]:
        """Requests, each with a seed of its own, so that every server is asked for the same draws."""
        request = {"bank": BANK, "anchors": {"rows": self.anchors}, "draws": [{"k": self.k, "uniform": {}}]}
        request["columns"] = list(self.columns)
        encoded = (json_format.ParseDict(request | {"seed": seed}, message("SampleRequest")()) for seed in range(MESSAGES))
        return [one.SerializeToString() for one in encoded]

    def served(self, answer: bytes) -> int:
        """Negatives in an answer."""
        return sum(sum(draw.counts) for draw in message("SampleResponse").FromString(answer).draws)


LOADS = {
    "batches": Load(anchors=256, k=64, columns=("COLUMN_IDS", "COLUMN_EMBEDDINGS"), in_flight=4),
    "small_calls": Load(anchors=8, k=16, columns=("COLUMN_IDS",), in_flight=16),
}


@cache
def message(name: str) -> Any:
    """The class of a message of negbank.v1, made of the proto files."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "negbank"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", "--include_imports", f"--descriptor_set_out={out}"]
        subprocess.run([*command, str(PROTO / "negbank/v1/sampling.proto")], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    # A pool of its own: whoever else in this process has made modules of the same files is not disturbed.
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"negbank.v1.{name}"))
