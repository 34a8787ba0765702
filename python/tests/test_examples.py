"""Every example, run as it stands against a real server on the real data that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import negbank
import simclr_run
from data import digits, docstrings
from processes import in_ranks
from server_process import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"


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


def test_inst_disc_learns_from_a_bank_of_instances(fresh: negbank.Client) -> None:
    from inst_disc import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.05
    bank = fresh.bank("inst-disc")
    assert bank.info().entries == len(digits()[0])
    assert int(bank.stalest(1).steps[0]) > 0, "an image was never written"


def test_moco_learns_from_a_queue_of_keys(fresh: negbank.Client) -> None:
    from moco import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.05
    assert found["queue"] == 512
    read = fresh.bank("moco").read()
    assert 512 % 60, "the batch size divides the queue"
    assert (read.steps[1:] >= read.steps[:-1]).all(), "a queue is in the order of its steps"


def test_simclr_has_the_negatives_of_every_rank(fresh: negbank.Client, server: ServerProcess) -> None:
    from simclr import train

    alone = train(fresh)
    assert alone["after"] > alone["before"] + 0.05
    assert alone["negatives"] == 118
    first, second = in_ranks(2, simclr_run.example, server.address)
    assert first["after"] > first["before"] + 0.05
    assert first["negatives"] == 118, "a rank had its own 30 images' views only"
    assert first["after"] == pytest.approx(second["after"], abs=1e-6), "the ranks have one model"


def test_mochi_mixes_are_harder_than_the_hardest(fresh: negbank.Client) -> None:
    from mochi import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.03
    assert found["mixed"] > found["hardest"] > found["random"]


def test_xbm_finds_positives_that_the_batch_lacks(fresh: negbank.Client) -> None:
    from xbm import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.1
    assert found["in_memory"] > 10 * found["in_batch"] > 0


def test_sup_con_serves_no_negative_of_the_anchor_s_label(fresh: negbank.Client) -> None:
    from sup_con import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.08
    assert found["same_label"] == 0.0


def test_semi_hard_negatives_are_in_the_band(fresh: negbank.Client) -> None:
    from semi_hard import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.04
    assert found["outside"] == 0.0
    assert found["served"] > 10_000


def test_sampled_softmax_estimates_the_whole_softmax(fresh: negbank.Client) -> None:
    from sampled_softmax import train

    found = train(fresh)
    assert found["after"] < found["before"] - 1.0
    # With the sign or ln k wrong it would be off by more than 4.
    assert found["sampled"] == pytest.approx(found["exact"], abs=0.1)


def test_hcl_weighs_and_the_server_draws_harder_ones(fresh: negbank.Client) -> None:
    from hcl import train

    weighed = train(fresh)
    drawn = train(fresh, drawn_hard=True, epochs=1)
    harder = train(fresh, beta=5.0, drawn_hard=True, epochs=1)
    assert weighed["after"] > weighed["before"] + 0.03
    assert drawn["after"] > drawn["before"]
    assert harder["score"] > drawn["score"] > weighed["score"]


def test_ring_negatives_are_in_their_band(fresh: negbank.Client) -> None:
    from ring import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.05
    assert found["outside"] == 0.0


def test_negative_cache_has_the_loss_over_all_texts(fresh: negbank.Client) -> None:
    from negative_cache import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.1
    assert found["loss"] == pytest.approx(found["exact"], abs=1e-4)


def test_nv_retriever_serves_nothing_close_to_the_positive(fresh: negbank.Client) -> None:
    from nv_retriever import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.1
    assert found["too_close"] == found["copies"] == 0
    assert len(set(docstrings()[1])) < len(docstrings()[1]), "there are no copies to keep away"


def test_ance_serves_nothing_older_than_a_round_of_refreshes(fresh: negbank.Client) -> None:
    from ance import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.1
    # 100 entries every 5 steps.
    assert 5 <= found["oldest"] <= 5 * (len(docstrings()[1]) // 100 + 1) < found["steps"]


def test_cmc_halves_find_each_other(fresh: negbank.Client) -> None:
    from cmc import train

    found = train(fresh)
    assert found["after"] > 2 * found["before"]
    assert {fresh.bank(f"cmc-{view}").info().entries for view in ("even", "odd")} == {len(digits()[0])}


def test_decoupled_losses_learn_from_small_batches(fresh: negbank.Client) -> None:
    from decoupled import train

    for weighted in (False, True):
        found = train(fresh, weighted=weighted)
        assert found["after"] > found["before"] + 0.03


def test_debiased_draws_are_even(fresh: negbank.Client) -> None:
    from debiased import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.02
    assert found["of_own_digit"] == pytest.approx(0.1, abs=0.005), "what tau corrects is not what is drawn"


def test_cancellation_finds_images_of_the_anchor_s_digit(fresh: negbank.Client) -> None:
    from cancellation import train

    for attract in (False, True):
        found = train(fresh, attract=attract)
        assert found["after"] > found["before"] + 0.03
        assert found["cancelled"] > 3 * found["negatives"]


def test_nnclr_has_the_nearest_of_another_image_as_positive(fresh: negbank.Client) -> None:
    from nnclr import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.03
    assert found["of_same_digit"] > 0.3, "a random image shows the same digit once in ten times"


def test_multi_similarity_serves_what_its_rule_mines(fresh: negbank.Client) -> None:
    from multi_similarity import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.05
    assert found["unmined"] == 0.0
    assert found["served"] > 10_000


def test_mixed_negatives_estimate_the_whole_softmax(fresh: negbank.Client) -> None:
    from mixed_negatives import train

    found = train(fresh)
    assert found["after"] < found["before"] - 1.0
    assert found["sampled"] == pytest.approx(found["exact"], abs=0.1)


def test_rocket_qa_serves_nothing_that_the_judge_denied(fresh: negbank.Client) -> None:
    from rocket_qa import train

    found = train(fresh)
    assert found["after"] > found["before"] + 0.1
    assert found["denied"] > 1_000
    assert found["served"] == 0.0


def test_an_example_is_a_command(own_server: ServerProcess) -> None:
    command = [sys.executable, str(EXAMPLES / "moco.py"), own_server.address]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    assert "'after': 0." in done.stdout


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "data.py"))
def test_an_example_is_short_tested_and_says_how_it_is_run(example: str) -> None:
    text = (EXAMPLES / example).read_text()
    assert 20 <= text.count("\n") <= 75
    assert f"python examples/{example} 127.0.0.1:7700" in text
    assert f"from {example.removesuffix('.py')} import train" in Path(__file__).read_text()
