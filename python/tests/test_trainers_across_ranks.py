"""The trainers' callbacks with checkpoints, in two real processes over gloo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import negbank
from processes import in_ranks
from server_process import ServerProcess
from small_model import BATCH, DIM
from trainer_ranks import RANKS, outcomes, under_hugging_face, under_lightning


@pytest.mark.parametrize("train", [under_hugging_face, under_lightning])
def test_a_checkpoint_has_every_rank_s_rows_and_what_the_first_is_refused_all_raise(
    server: ServerProcess,
    client: negbank.Client,
    location: str,
    name: str,
    tmp_path: Path,
    train: Callable[..., str | None],
) -> None:
    client.create_bank(name, dim=DIM)
    keeping = ServerProcess(location)
    try:
        keeper = negbank.connect(keeping.address)
        for bank in ("run", "another"):
            keeper.create_bank(bank, dim=DIM)
        runs = [
            (keeping.address, "run", str(tmp_path / "run"), 1, False),
            (keeping.address, "another", str(tmp_path / "run"), 2, True),  # has no checkpoint to go back to
            (server.address, name, str(tmp_path / "refused"), 1, False),  # this server keeps none
            (keeping.address, "another", str(tmp_path / "late"), 1, False, 1e-4),  # seconds, too few for any checkpoint
        ]
        came = [None, "NotFound", "FailedPrecondition", "DeadlineExceeded"]
        assert in_ranks(RANKS, outcomes, train, runs) == [came] * RANKS
        (made,) = keeper.checkpoints()
    finally:
        keeping.stop()
    assert (made.bank, made.tag, made.entries) == ("run", "1", RANKS * BATCH)
