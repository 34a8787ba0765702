"""Every example, run as it stands against a real server on the real data that it names."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import negbank
import simclr_run
from data import digits, docstrings
from processes import in_ranks
from server_process import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "data.py")
METHODS = Path(__file__).parents[2] / "docs" / "methods.md"
# Runs an example by its name, with options of its `train`.
Run = Callable[..., dict[str, float]]
# The tests that ran an example to its end, by its file.
RAN: dict[str, set[str]] = {}


@pytest.fixture
def fresh(client: negbank.Client) -> Iterator[negbank.Client]:
    """A client; the banks that an example makes are deleted after it."""
    before, threads = {info.name for info in client.list_banks()}, torch.get_num_threads()
    torch.set_num_threads(1)
    yield client
    torch.set_num_threads(threads)
    for info in client.list_banks():
        if info.name not in before:
            client.delete_bank(info.name)


@pytest.fixture
def run(fresh: negbank.Client, request: pytest.FixtureRequest) -> Run:
    """Runs an example's `train` with a client of the shared server, and notes that this test did."""

    def run(example: str, **options: Any) -> dict[str, float]:
        found: dict[str, float] = importlib.import_module(example).train(fresh, **options)
        RAN.setdefault(f"{example}.py", set()).add(request.node.name)
        return found

    return run


def test_inst_disc_learns_from_a_bank_of_instances(run: Run, fresh: negbank.Client) -> None:
    found = run("inst_disc")
    assert found["after"] > found["before"] + 0.05
    bank = fresh.bank("inst-disc")
    assert bank.info().entries == len(digits()[0])
    assert int(bank.stalest(1).steps[0]) > 0, "an image was never written"


def test_moco_learns_from_a_queue_of_keys(run: Run, fresh: negbank.Client) -> None:
    found = run("moco")
    assert found["after"] > found["before"] + 0.05
    assert found["queue"] == 512
    read = fresh.bank("moco").read()
    assert 512 % 60, "the batch size divides the queue"
    assert (read.steps[1:] >= read.steps[:-1]).all(), "a queue is in the order of its steps"


def test_simclr_has_the_negatives_of_every_rank(run: Run, server: ServerProcess) -> None:
    alone = run("simclr")
    assert alone["after"] > alone["before"] + 0.05
    assert alone["negatives"] == 118
    first, second = in_ranks(2, simclr_run.example, server.address)
    assert first["after"] > first["before"] + 0.05
    assert first["negatives"] == 118, "a rank had its own 30 images' views only"
    assert first["after"] == pytest.approx(second["after"], abs=1e-6), "the ranks have one model"


def test_mochi_mixes_are_harder_than_the_hardest(run: Run) -> None:
    found = run("mochi")
    assert found["after"] > found["before"] + 0.03
    assert found["mixed"] > found["hardest"] > found["random"]


def test_xbm_finds_positives_that_the_batch_lacks(run: Run) -> None:
    found = run("xbm")
    assert found["after"] > found["before"] + 0.1
    assert found["in_memory"] > 10 * found["in_batch"] > 0


def test_sup_con_serves_no_negative_of_the_anchor_s_label(run: Run) -> None:
    found = run("sup_con")
    assert found["after"] > found["before"] + 0.08
    assert found["same_label"] == 0.0


def test_semi_hard_negatives_are_in_the_band(run: Run) -> None:
    found = run("semi_hard")
    assert found["after"] > found["before"] + 0.04
    assert found["outside"] == 0.0
    assert found["served"] > 10_000


def test_sampled_softmax_estimates_the_whole_softmax(run: Run) -> None:
    found = run("sampled_softmax")
    assert found["after"] < found["before"] - 1.0
    # With the sign or ln k wrong it would be off by more than 4.
    assert found["sampled"] == pytest.approx(found["exact"], abs=0.1)


def test_hcl_weighs_and_the_server_draws_harder_ones(run: Run) -> None:
    weighed = run("hcl")
    drawn = run("hcl", drawn_hard=True, epochs=1)
    harder = run("hcl", beta=5.0, drawn_hard=True, epochs=1)
    assert weighed["after"] > weighed["before"] + 0.03
    assert drawn["after"] > drawn["before"]
    assert harder["score"] > drawn["score"] > weighed["score"]
    for found in (weighed, drawn, harder):
        # Of 64 negatives and of 1,399, to one of each. Drawn with beta in place of beta / T they are 0.25 apart and more.
        one, of_all = np.expm1(found["loss"]) / 64, np.expm1(found["whole"]) / 1_399
        assert np.log(one) == pytest.approx(np.log(of_all), abs=0.12)


def test_ring_negatives_are_in_their_band(run: Run) -> None:
    found = run("ring")
    assert found["after"] > found["before"] + 0.05
    assert found["outside"] == 0.0


def test_negative_cache_has_the_loss_over_all_texts(run: Run) -> None:
    found = run("negative_cache")
    assert found["after"] > found["before"] + 0.1
    assert found["loss"] == pytest.approx(found["exact"], abs=1e-4)


def test_nv_retriever_serves_nothing_close_to_the_positive(run: Run) -> None:
    found = run("nv_retriever")
    assert found["after"] > found["before"] + 0.1
    assert found["too_close"] == found["copies"] == 0
    assert len(set(docstrings()[1])) < len(docstrings()[1]), "there are no copies to keep away"


def test_ance_serves_nothing_older_than_a_round_of_refreshes(run: Run) -> None:
    found = run("ance")
    assert found["after"] > found["before"] + 0.1
    # 100 entries every 5 steps.
    assert 5 <= found["oldest"] <= 5 * (len(docstrings()[1]) // 100 + 1) < found["steps"]


def test_cmc_halves_find_each_other(run: Run, fresh: negbank.Client) -> None:
    found = run("cmc")
    assert found["after"] > 2 * found["before"]
    assert {fresh.bank(f"cmc-{view}").info().entries for view in ("even", "odd")} == {len(digits()[0])}


def test_decoupled_losses_learn_from_small_batches(run: Run) -> None:
    for weighted in (False, True):
        found = run("decoupled", weighted=weighted)
        assert found["after"] > found["before"] + 0.03


def test_debiased_draws_are_even(run: Run) -> None:
    found = run("debiased")
    assert found["after"] > found["before"] + 0.02
    assert found["of_own_digit"] == pytest.approx(0.1, abs=0.005), "what tau corrects is not what is drawn"


def test_cancellation_finds_images_of_the_anchor_s_digit(run: Run) -> None:
    for attract in (False, True):
        found = run("cancellation", attract=attract)
        assert found["after"] > found["before"] + 0.03
        assert found["cancelled"] > 3 * found["negatives"]


def test_nnclr_has_the_nearest_of_another_image_as_positive(run: Run) -> None:
    found = run("nnclr")
    assert found["after"] > found["before"] + 0.03
    assert found["of_same_digit"] > 0.3, "a random image shows the same digit once in ten times"


def test_multi_similarity_serves_what_its_rule_mines(run: Run) -> None:
    found = run("multi_similarity")
    assert found["after"] > found["before"] + 0.05
    assert found["unmined"] == 0.0
    assert found["served"] > 10_000


def test_mixed_negatives_estimate_the_whole_softmax(run: Run) -> None:
    found = run("mixed_negatives")
    assert found["after"] < found["before"] - 1.0
    assert found["sampled"] == pytest.approx(found["exact"], abs=0.1)


def test_rocket_qa_serves_nothing_that_the_judge_denied(run: Run) -> None:
    found = run("rocket_qa")
    assert found["after"] > found["before"] + 0.1
    assert found["denied"] > 1_000
    assert found["served"] == 0.0


def test_an_example_is_a_command(own_server: ServerProcess) -> None:
    command = [sys.executable, str(EXAMPLES / "moco.py"), own_server.address]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    assert "'after': 0." in done.stdout


@pytest.mark.parametrize("example", SHORT)
def test_an_example_is_short_and_says_how_it_is_run(example: str) -> None:
    text = (EXAMPLES / example).read_text()
    assert 20 <= text.count("\n") <= 60
    assert f"python examples/{example} 127.0.0.1:7700" in text


def test_every_example_ran_in_the_test_that_the_methods_page_names() -> None:
    """The last of this file: it looks at what those above did, so it is to be run with all of them."""
    assert sorted(RAN) == SHORT
    shown = re.findall(
        r"^\|[^|]+\|.+\| \[(\w+\.py)\]\(\.\./examples/\1\) \| `test_examples\.py::(\w+)`", METHODS.read_text(), re.M
    )
    assert {example for example, _ in shown} == set(SHORT)
    for example, test in shown:
        assert test in RAN[example], f"{test} did not run {example}"
