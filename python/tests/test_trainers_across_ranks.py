"""The trainers' callbacks with checkpoints, in two real processes over gloo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import negbank
from processes import in_ranks
from server_process import ServerProcess
from small_model import BATCH, DIM
from trainer_ranks import RANKS, ROWS, outcomes, under_hugging_face, under_lightning


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
        assert (made.bank, made.tag, made.entries) == ("run", "1", RANKS * BATCH)

        # What the job did after its checkpoint, until it was stopped.
        keeper.bank("run").write(range(ROWS), np.ones((ROWS, DIM), np.float32), step=99)
        keeper.create_bank("whole", dim=DIM)
        runs = [
            (keeping.address, "run", str(tmp_path / "run"), 2, True),
            (keeping.address, "whole", str(tmp_path / "whole"), 2, False),
        ]
        assert in_ranks(RANKS, outcomes, train, runs) == [[None, None]] * RANKS
        resumed, whole = (keeper.bank(bank) for bank in ("run", "whole"))
        there, expected = (bank.fetch(np.arange(ROWS)) for bank in (resumed, whole))
        assert max(there.steps) == max(expected.steps) == 1
        # Lightning begins an epoch anew that was left in the middle.
        if train is under_hugging_face:
            np.testing.assert_array_equal(there.steps, expected.steps)
            np.testing.assert_allclose(there.embeddings, expected.embeddings, atol=1e-6)
    finally:
        keeping.stop()
