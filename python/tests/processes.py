"""Ranks of a distributed job: real processes that reduce their gradients over gloo."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch import distributed

# Far beyond what two processes need to import torch and train a tiny network on a busy machine.
WITHIN = 120.0


def in_ranks(world_size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(rank, world_size, *arguments)` returns in each of so many processes, by rank.

    No tensors: their memory ends with their process.
    """
    # All are forked from one that has imported torch, which takes seconds.
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "negbank.torch"])
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{Path(folder) / 'store'}"
        start = (store, answers, work, arguments)
        ranks = [context.Process(target=_rank, args=(rank, world_size, *start)) for rank in range(world_size)]
        for process in ranks:
            process.start()
        try:
            by_rank = dict(_answer(answers) for _ in ranks)
            for process in ranks:
                process.join(WITHIN)
        finally:
            for process in ranks:
                process.kill()
    return [by_rank[rank] for rank in range(world_size)]


def _answer(answers: Any) -> tuple[int, Any]:
    try:
        rank, answer, problem = answers.get(timeout=WITHIN)
    except Empty:
        raise TimeoutError(f"a rank said nothing within {WITHIN} s") from None
    if problem is not None:
        raise RuntimeError(f"rank {rank} failed:\n{problem}")
    return rank, answer


def _rank(rank: int, world_size: int, store: str, answers: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
        answer, problem = work(rank, world_size, *arguments), None
        distributed.barrier()
        distributed.destroy_process_group()
    except BaseException:
        answer, problem = None, traceback.format_exc()
    answers.put((rank, answer, problem))
