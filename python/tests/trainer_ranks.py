"""One rank of a trainer's run; its process imports it by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

import negbank
from negbank.huggingface import BankCallback
from negbank.lightning import BankCallback as LightningCallback
from negbank.torch import Keeper
from small_model import BATCH, IMAGES, Encoder

RANKS, ROWS = 2, 64
# Longer than the first rank takes from its own write to the checkpoint, on a busy machine.
LATE = 3.0


def outcomes(rank: int, world_size: int, train: Callable[..., str | None], runs: list[tuple[Any, ...]]) -> list[str | None]:
    """Trains once for each of these arguments; what came of each run."""
    return [train(rank, world_size, *arguments) for arguments in runs]


class _Late:
    """A bank whose writes take their time to begin."""

    def __init__(self, bank: negbank.Bank) -> None:
        self._bank = bank

    def write(self, *arguments: Any, **columns: Any) -> negbank.Written:
        time.sleep(LATE)
        return self._bank.write(*arguments, **columns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bank, name)


def _keeper(rank: int, address: str, name: str) -> Keeper:
    bank = negbank.connect(address).bank(name)
    return Keeper(bank if rank == 0 else cast(negbank.Bank, _Late(bank)))


class _HuggingFace(Trainer):
    keeper: Keeper

    def store_flos(self) -> None:
        """Nothing: it is what else has ranks wait for each other before a checkpoint, and not in every run."""

    def compute_loss(self, model: Any, inputs: Any, **_: Any) -> Any:  # type: ignore[override]
        keys = model(IMAGES[inputs["ids"]])
        self.keeper.collect(keys, ids=inputs["ids"])
        return keys.square().sum(1).mean()


def under_hugging_face(
    rank: int, world_size: int, address: str, name: str, folder: str, steps: int, resume: bool, timeout: float = 3600.0
) -> str | None:
    """Trains so many steps, with a checkpoint after each that may take so long; returns what kind of error came of it."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")  # asked for, not used: the group is there
    keeper = _keeper(rank, address, name)
    arguments = TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="steps",
        save_steps=1,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    data: Any = [{"ids": place} for place in range(ROWS)]
    callback = BankCallback(keeper, checkpoints=True, timeout=timeout)
    trainer = _HuggingFace(Encoder(), arguments, train_dataset=data, callbacks=[callback])
    trainer.keeper = keeper
    try:
        trainer.train(resume_from_checkpoint=resume)
    except negbank.Error as fault:
        return type(fault).__name__
    return None


class _Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def training_step(self, ids: Any, batch_idx: int) -> Any:
        keys = self.encoder(IMAGES[ids])
        return {"loss": keys.square().sum(1).mean(), "embeddings": keys, "ids": ids}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def under_lightning(
    rank: int, world_size: int, address: str, name: str, folder: str, steps: int, resume: bool, timeout: float = 3600.0
) -> str | None:
    """The same, under Lightning."""
    os.environ.update(NODE_RANK="0", LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    kept = Path(folder) / "kept.ckpt"
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=world_size,
        strategy="ddp",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[LightningCallback(_keeper(rank, address, name), checkpoints=True, timeout=timeout)],
    )
    ids: Any = torch.arange(ROWS)
    try:
        trainer.fit(_Module(), DataLoader(ids, batch_size=BATCH), ckpt_path=kept if resume else None)
        trainer.save_checkpoint(kept)
    except negbank.Error as fault:
        return type(fault).__name__
    return None
