"""Each part of `python -m trials`, in seconds: it runs through a real server, and the page takes its figures."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import negbank
from server_process import ServerProcess

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY / "python"))

from demo.corpus import Corpus  # noqa: E402
from trials import document, hardness, overhead, small_batches  # noqa: E402

PAGE = (REPOSITORY / "docs" / "training.md").read_text()


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def rendered(part: str, found: dict[str, Any]) -> str:
    """The page with this part's figures; the other sections must stand as they did."""
    page = document.page({part: {"machine": "a machine", **found}}, PAGE)
    headings = re.findall(r"^## .*", PAGE, re.M)
    assert re.findall(r"^## .*", page, re.M) == headings
    kept = [text for text in PAGE.split("\n## ")[1:] if text.strip() in {one.strip() for one in page.split("\n## ")[1:]}]
    assert len(kept) == len(headings) - 1
    return page


def test_hardness(client: negbank.Client, server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardness, "BETAS", ("0", "5", "top"))
    monkeypatch.setattr(hardness, "CASES", {"none": ("0", "5", "top"), "label": ("0", "top"), "group": ("top",)})
    regime = hardness.Regime(epochs=1, refresh=3)
    found = hardness.measure(server.address, 2, 1, regime, tuning=(100,))
    assert found["best_beta"] in ("0", "5", "top")
    assert all(len(scores) == 2 for of in found["score"].values() for scores in of.values())
    served, copies = found["same_label"], found["same_group"]
    assert np.mean(served["none"]["top"]) > np.mean(served["none"]["5"]) > np.mean(served["none"]["0"])
    assert np.mean(copies["none"]["top"]) > np.mean(copies["none"]["0"]) > 0.0
    assert copies["group"]["top"] == served["label"]["top"] == served["label"]["0"] == [0.0, 0.0]
    assert not [info.name for info in client.list_banks() if info.name.startswith("hardness")]
    page = rendered("hardness", found)
    assert all(line in page for line in document.said(found["contrasts"]))


def test_hardness_repeats(server: ServerProcess) -> None:
    case, regime = hardness.Case("none", "5", 3), hardness.Regime(epochs=1, refresh=3)
    assert hardness.train(server.address, case, regime) == hardness.train(server.address, case, regime)


def test_small_batches(server: ServerProcess) -> None:
    words = [[f"{letter}{letter}{other}" for letter in "abcdefgh"] for other in map(str, range(120))]
    rows = np.arange(120)
    corpus = Corpus([str(row) for row in rows], words, words, rows.astype(np.uint64), rows.astype(np.uint64), rows, rows % 3)
    settings = dataclasses.replace(small_batches.SETTINGS, warm_up_steps=3, steps=4, served=8)
    found = small_batches.measure(server.address, 2, 1, settings, corpus)
    assert set(found["batches"]) == {"8", "16"}
    for of in found["batches"].values():
        assert of["scores"]["A"] != of["scores"]["B"] or of["scores"]["A"] != of["scores"]["G"]
    rendered("small_batches", found)


def test_overhead(client: negbank.Client, server: ServerProcess) -> None:
    size = overhead.Size(dim=16, batch=8, queue=64, random=16, hard=4, steps=3, warm_up=1)
    found = overhead.measure(server.address, 0, 0, size)
    assert {kind: list(ways) for kind, ways in found["ms"].items()} == {
        "random": ["local", "service", "service, a step ahead"],
        "hard": ["local", "service"],
    }
    assert all(0 < low <= median <= high for ways in found["ms"].values() for low, median, high in ways.values())
    assert not [info.name for info in client.list_banks() if info.name.startswith("overhead")]
    rendered("overhead", found)


@pytest.mark.parametrize("sign", ["positive", "negative", "about zero"])
def test_the_words_are_those_of_the_signs(sign: str) -> None:
    low, high = {"positive": (0.1, 0.3), "negative": (-0.3, -0.1), "about zero": (-0.1, 0.1)}[sign]
    ends = ("none best - none 0", "none best - none top")
    contrasts = {name: {"mean": (low + high) / 2, "low": low, "high": high} for name in (*ends, *document.SAID)}
    peak, *others = document.said(contrasts)
    assert others == [by_sign[sign] for by_sign in document.SAID.values()]
    assert ("was shown" in peak) == (sign == "positive")
    assert "was not shown" in document.said({name: of for name, of in contrasts.items() if name != ends[0]})[0]
