"""Banks kept up with a model: by the keeper itself, under Hugging Face's Trainer, under Lightning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import negbank
from negbank.huggingface import BankCallback
from negbank.lightning import BankCallback as LightningCallback
from negbank.torch import Keeper
from server_process import ServerProcess
from small_model import BATCH, DIM, EVERY, IMAGES, LABELS, STALEST, Encoder, contrastive, encoded, filled, keeper

STEPS, STOP = 12, 6
# Lightning's own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


@pytest.fixture
def other(client: negbank.Client, name: str) -> Iterator[str]:
    yield name + "-2"
    client.delete_bank(name + "-2")


def everything(bank: negbank.Bank) -> tuple[Any, Any]:
    entries = bank.fetch(np.arange(256))
    return entries.embeddings, entries.steps


# --- the keeper -------------------------------------------------------------------------------------------------------------


def test_a_step_s_rows_are_written_once_and_the_stalest_encoded_anew(client: negbank.Client, name: str) -> None:
    bank, model = filled(client, name), Encoder()
    one = keeper(bank)
    rows = torch.randn(4, DIM, requires_grad=True)
    one.collect(rows[:1], ids=[3], labels=[7])
    one.collect(rows[1:], ids=torch.tensor([4, 5, 6]), labels=torch.tensor([1, 1, 2]))
    before = bank.info().sequence
    one.end_of_step(model, 3)
    assert bank.info().sequence == before + 1, "micro-batches are one write"
    entries = bank.fetch([3, 4, 5, 6])
    assert entries.labels.tolist() == [7, 1, 1, 2]
    assert entries.steps.tolist() == [2] * 4, "the model before its update made them"
    one.end_of_step(model, 4)
    refreshed = np.flatnonzero(everything(bank)[1] == 4)
    assert len(refreshed) == STALEST
    assert not np.isin([3, 4, 5, 6], refreshed).any(), "they were the freshest"
    assert model.training
    with torch.no_grad():
        now = model.eval()(IMAGES[refreshed])
    np.testing.assert_allclose(bank.fetch(refreshed).embeddings, now, atol=1e-6)
    assert one.written == 4 + STALEST
    one.collect(rows, ids=[1, 2, 3, 4])
    with pytest.raises(negbank.InvalidArgument, match="other columns"):
        one.collect(rows, ids=[1, 2, 3, 4], labels=[1, 2, 3, 4])


def test_every_entry_has_its_turn_and_ranks_share_them(client: negbank.Client, name: str) -> None:
    bank, model = filled(client, name), Encoder()
    one = keeper(bank, rows=64)
    for step in range(1, 5):
        assert sum(one.refresh(model, step, rank=rank, world_size=3) for rank in range(3)) >= 43
    for step in range(5, 9):
        one.refresh(model, step)
    assert (everything(bank)[1] > 0).all()


def test_queues_take_what_is_collected_and_nothing_is_encoded_anew(client: negbank.Client, name: str) -> None:
    queue = client.create_bank(name, dim=DIM, kind="queue", capacity=10)
    one = Keeper(queue)
    one.collect(torch.randn(4, DIM), labels=[1, 2, 3, 4])
    one.end_of_step(Encoder(), 1)
    one.end_of_step(Encoder(), 2)
    assert queue.read().labels.tolist() == [1, 2, 3, 4]
    with pytest.raises(negbank.FailedPrecondition):
        Keeper(queue, encode=encoded)
    with pytest.raises(negbank.InvalidArgument):
        one.refresh(Encoder(), 3)
    with pytest.raises(negbank.InvalidArgument):
        Keeper(queue, on_unavailable="shrug")  # type: ignore[arg-type]


def test_training_goes_on_without_the_server_where_that_is_allowed(own_server: ServerProcess) -> None:
    bank, model = filled(negbank.connect(own_server.address, retries=0), "away"), Encoder()
    strict, lax = keeper(bank, sampler=None), keeper(bank, sampler=None, on_unavailable="skip")
    own_server.kill()
    strict.collect(torch.randn(1, DIM), ids=[1])
    with pytest.raises(negbank.Unavailable):
        strict.end_of_step(model, 1)
    lax.collect(torch.randn(1, DIM), ids=[1])
    with pytest.warns(RuntimeWarning, match="not kept up"):
        lax.end_of_step(model, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lax.collect(torch.randn(1, DIM), ids=[1])
        lax.end_of_step(model, EVERY)
    assert lax.written == 0


def test_a_staged_step_is_one_write_in_the_order_of_ranks(server: ServerProcess, client: negbank.Client, name: str) -> None:
    bank = filled(client, name)
    before = bank.info().sequence
    stored = bank.fetch([8]).embeddings[0]
    keepers = [Keeper(negbank.connect(server.address).bank(name), staged=True) for _ in range(3)]
    rows = torch.nn.functional.normalize(torch.randn(3, DIM, generator=torch.Generator().manual_seed(1)), dim=1)
    with ThreadPoolExecutor(3) as pool:
        for step in (1, 2):
            for rank, one in enumerate(keepers):
                one.collect(rows[rank : rank + 1], ids=[8])
            # The last rank comes first.
            late_to_early = reversed(list(enumerate(keepers)))
            done = [pool.submit(one.end_of_step, Encoder(), step, rank=rank, world_size=3) for rank, one in late_to_early]
            assert [each.result() for each in done] == [None] * 3
    assert bank.info().sequence == before + 2
    for row in rows.double().numpy().tolist() * 2:
        stored = stored + np.array(row)
        stored /= np.linalg.norm(stored)
    np.testing.assert_allclose(bank.fetch([8]).embeddings[0], stored, atol=1e-6)
    assert [one.written for one in keepers] == [2, 2, 2]


def test_a_stage_that_lacks_a_rank_writes_nothing_and_the_next_one_does(
    server: ServerProcess, client: negbank.Client, name: str
) -> None:
    bank = filled(client, name)
    before = bank.info().sequence
    hasty = negbank.connect(server.address, timeout=0.5).bank(name)
    strict, lax = Keeper(hasty, staged=True), Keeper(hasty, staged=True, on_unavailable="skip")
    for one in (strict, lax):
        one.collect(torch.randn(2, DIM), ids=[1, 2])
    with pytest.raises(negbank.DeadlineExceeded, match=r"rank.*\b1\b"):
        strict.end_of_step(Encoder(), 1, rank=0, world_size=2)
    with pytest.warns(RuntimeWarning, match=r"rank.*\b0\b"):
        lax.end_of_step(Encoder(), 2, rank=1, world_size=2)
    # The rows of a write that failed are not kept.
    strict.end_of_step(Encoder(), 3, rank=0, world_size=2)
    assert bank.info().sequence == before
    with ThreadPoolExecutor(2) as pool:
        for rank, one in enumerate((strict, lax)):
            one.collect(torch.randn(1, DIM), ids=[rank])
        done = [pool.submit(one.end_of_step, Encoder(), 4, rank=rank, world_size=2) for rank, one in enumerate((strict, lax))]
        assert [each.result() for each in done] == [None, None]
    assert bank.info().sequence == before + 1
    assert (strict.written, lax.written) == (1, 1)


# --- Hugging Face -----------------------------------------------------------------------------------------------------------


class HuggingFaceRun(Trainer):
    """Trains an encoder on `small_model`'s step."""

    def __init__(
        self,
        keeper: Keeper,
        folder: Path,
        callbacks: list[TrainerCallback],
        checkpoints: bool = False,
        keep: int = 0,
        images: int = 256,
        **options: Any,
    ) -> None:
        self.keeper = keeper
        self.drawn: list[Any] = []
        arguments: dict[str, Any] = {
            "max_steps": STEPS,
            "per_device_train_batch_size": BATCH,
            "learning_rate": 0.01,
            "lr_scheduler_type": "constant",
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            "logging_strategy": "no",
            "save_strategy": "steps",
            "save_steps": STOP,
            "remove_unused_columns": False,
            "dataloader_pin_memory": False,
        }
        data = [{"ids": place} for place in range(images)]
        super().__init__(
            Encoder(),
            TrainingArguments(str(folder), **{**arguments, **options}),
            train_dataset=data,
            eval_dataset=data[: 2 * BATCH],
            callbacks=[BankCallback(keeper, checkpoints=checkpoints, keep=keep), *callbacks],
        )

    def compute_loss(self, model: Any, inputs: Any, **_: Any) -> Any:  # type: ignore[override]
        loss, keys = contrastive(model, self.keeper, inputs["ids"], self.drawn)
        self.keeper.collect(keys, ids=inputs["ids"])
        return loss


def test_a_hugging_face_run_keeps_its_bank_fresh_and_resumes(
    client: negbank.Client, name: str, other: str, tmp_path: Path
) -> None:
    whole = HuggingFaceRun(keeper(filled(client, name)), tmp_path / "whole", [])
    whole.train()
    assert whole.model is not None
    assert whole.keeper.written == STEPS * BATCH + STEPS // EVERY * STALEST
    rows, steps = everything(client.bank(name))
    with torch.no_grad():
        now = encoded(whole.model.eval(), torch.arange(256))
    fresh = steps == STEPS
    assert fresh.sum() == STALEST
    np.testing.assert_allclose(rows[fresh], now[fresh], atol=1e-5)

    bank = filled(client, other)
    first = HuggingFaceRun(keeper(bank), tmp_path / "stopped", [], max_steps=STOP)
    first.train()
    resumed = HuggingFaceRun(keeper(bank), tmp_path / "stopped", [])
    resumed.train(resume_from_checkpoint=True)
    assert first.drawn + resumed.drawn == whole.drawn
    assert len(whole.drawn) == STEPS
    np.testing.assert_array_equal(everything(bank)[0], rows)


def test_a_hugging_face_run_is_resumed_with_the_bank_of_its_checkpoint(keeping: negbank.Client, tmp_path: Path) -> None:
    whole = HuggingFaceRun(keeper(filled(keeping, "whole")), tmp_path / "whole", [])
    whole.train()
    bank = filled(keeping, "stopped")
    first = HuggingFaceRun(keeper(bank), tmp_path / "stopped", [], checkpoints=True, max_steps=STOP)
    first.train()
    assert [made.tag for made in keeping.checkpoints()] == [str(STOP)]
    # What the job did after its checkpoint, until it was stopped.
    bank.write(range(256), torch.randn(256, DIM), step=STOP + 3)
    resumed = HuggingFaceRun(keeper(bank), tmp_path / "stopped", [], checkpoints=True)
    resumed.train(resume_from_checkpoint=True)
    assert first.drawn + resumed.drawn == whole.drawn
    np.testing.assert_array_equal(everything(bank)[0], everything(keeping.bank("whole"))[0])


class HuggingFaceRunThatEvaluates(HuggingFaceRun):
    """Draws, and collects, in its evaluations too."""

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        with torch.no_grad():
            return self.compute_loss(model, inputs), None, None


def test_a_hugging_face_run_that_evaluates_writes_its_steps_alone_and_resumes_behind_its_draws(
    keeping: negbank.Client, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"checkpoints": True, "eval_strategy": "steps", "eval_steps": 3}
    whole = HuggingFaceRunThatEvaluates(keeper(filled(keeping, "whole")), tmp_path / "whole", [], **options)
    whole.train()
    assert len(whole.drawn) > STEPS
    assert whole.keeper.written == STEPS * BATCH + STEPS // EVERY * STALEST
    bank = filled(keeping, "stopped")
    first = HuggingFaceRunThatEvaluates(keeper(bank), tmp_path / "stopped", [], max_steps=STOP, **options)
    first.train()
    resumed = HuggingFaceRunThatEvaluates(keeper(bank), tmp_path / "stopped", [], **options)
    resumed.train(resume_from_checkpoint=True)
    assert first.drawn + resumed.drawn == whole.drawn
    np.testing.assert_array_equal(everything(bank)[0], everything(keeping.bank("whole"))[0])


class HuggingFaceRunThatIsKilled(HuggingFaceRun):
    """Ends as it saves its second checkpoint: before the model is saved, or once it is and nobody has heard of it."""

    before, saves = False, 0

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        self.saves += 1
        if self.before and self.saves == 2:
            raise KeyboardInterrupt
        super()._save_checkpoint(*arguments, **named)
        if self.saves == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("every", ["steps", "epoch"])
@pytest.mark.parametrize("before", [True, False])
def test_a_hugging_face_run_that_was_killed_as_it_saved_resumes_from_a_model_that_has_its_bank(
    location: str, tmp_path: Path, before: bool, every: str
) -> None:
    server = ServerProcess(location)
    try:
        client = negbank.connect(server.address)
        options: dict[str, Any] = {"save_strategy": every, "save_steps": 4, "save_total_limit": 1, "images": 4 * BATCH}
        whole = HuggingFaceRun(keeper(filled(client, "whole")), tmp_path / "whole", [], **options)
        whole.train()
        bank = filled(client, "killed")
        options |= {"checkpoints": True, "keep": 2}
        first = HuggingFaceRunThatIsKilled(keeper(bank), tmp_path / "killed", [], **options)
        first.before = before
        with pytest.raises(KeyboardInterrupt):
            first.train()
        (left,) = sorted((tmp_path / "killed").glob("checkpoint-*"))[-1:]
        assert left.name == ("checkpoint-4" if before else "checkpoint-8")
        bank.write(range(256), torch.randn(256, DIM), step=9)
        resumed = HuggingFaceRun(keeper(bank), tmp_path / "killed", [], **options)
        resumed.train(resume_from_checkpoint=True)
        assert first.drawn[: 4 if before else 8] + resumed.drawn == whole.drawn
        np.testing.assert_array_equal(everything(bank)[0], everything(client.bank("whole"))[0])
    finally:
        server.stop()


def test_a_hugging_face_run_keeps_as_many_of_the_bank_s_checkpoints_as_it_is_told(location: str, tmp_path: Path) -> None:
    server = ServerProcess(location, "checkpoints.keep=1")
    try:
        client = negbank.connect(server.address)
        options = {"max_steps": 4, "save_steps": 1, "save_total_limit": 2}
        bank = filled(client, "run")
        HuggingFaceRun(keeper(bank), tmp_path, [], checkpoints=True, keep=2, **options).train()
        kept = sorted(folder.name for folder in tmp_path.glob("checkpoint-*"))
        assert kept == ["checkpoint-3", "checkpoint-4"]
        assert [made.tag for made in client.checkpoints()] == ["3", "4"]
        with pytest.raises(negbank.InvalidArgument, match="keep"):
            BankCallback(keeper(bank), keep=-1)
    finally:
        server.stop()


def test_accumulated_micro_batches_are_one_write(client: negbank.Client, name: str, tmp_path: Path) -> None:
    bank = filled(client, name)
    before = bank.info().sequence
    run = HuggingFaceRun(
        keeper(bank, encode=None), tmp_path, [], gradient_accumulation_steps=3, max_steps=2, save_strategy="no"
    )
    run.train()
    assert bank.info().sequence == before + 2
    assert run.keeper.written == 2 * 3 * BATCH


# --- Lightning --------------------------------------------------------------------------------------------------------------


class Module(lightning.LightningModule):
    """Trains an encoder on `small_model`'s step."""

    def __init__(self, keeper: Keeper) -> None:
        super().__init__()
        self.encoder, self.keeper = Encoder(dropout=0.0), [keeper]  # Lightning keeps no state of torch's random numbers
        self.drawn: list[Any] = []

    def training_step(self, ids: Any, batch_idx: int) -> Any:
        loss, keys = contrastive(self.encoder, self.keeper[0], ids, self.drawn)
        return {"loss": loss, "embeddings": keys, "ids": ids, "labels": LABELS[ids]}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.encoder.parameters(), lr=0.01)


class Unsampled(Module):
    """Trains on what a batch has by itself."""

    def training_step(self, ids: Any, batch_idx: int) -> Any:
        keys = self.encoder(IMAGES[ids])
        return {"loss": keys.square().sum(1).mean(), "embeddings": keys, "ids": ids}


def lightning_run(
    module: Module,
    folder: Path,
    epochs: int,
    resumed: Path | None = None,
    checkpoints: bool = False,
    keep: int = 0,
    callbacks: tuple[lightning.Callback, ...] = (),
    **options: Any,
) -> lightning.Trainer:
    """Epochs are of `STOP` batches, since Lightning does not go back to the middle of one."""
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=bool(callbacks),
        callbacks=[LightningCallback(module.keeper[0], checkpoints=checkpoints, keep=keep), *callbacks],
        **options,
    )
    ids: Any = torch.arange(STOP * BATCH)
    trainer.fit(module, torch.utils.data.DataLoader(ids, batch_size=BATCH), ckpt_path=resumed)
    return trainer


def test_a_lightning_run_keeps_its_bank_fresh_and_resumes(
    client: negbank.Client, name: str, other: str, tmp_path: Path
) -> None:
    whole = Module(keeper(filled(client, name)))
    lightning_run(whole, tmp_path, STEPS // STOP)
    assert whole.keeper[0].written == STEPS * BATCH + STEPS // EVERY * STALEST
    rows, steps = everything(client.bank(name))
    fresh = steps == STEPS
    assert fresh.sum() == STALEST
    with torch.no_grad():
        now = whole.encoder.eval()(IMAGES)
    np.testing.assert_allclose(rows[fresh], now[fresh], atol=1e-5)

    bank = filled(client, other)
    first = Module(keeper(bank))
    lightning_run(first, tmp_path, 1).save_checkpoint(tmp_path / "stopped.ckpt")
    resumed = Module(keeper(bank))
    lightning_run(resumed, tmp_path, STEPS // STOP, tmp_path / "stopped.ckpt")
    assert first.drawn + resumed.drawn == whole.drawn
    assert len(whole.drawn) == STEPS
    np.testing.assert_array_equal(everything(bank)[0], rows)


def test_a_lightning_run_is_resumed_with_the_bank_of_its_checkpoint(keeping: negbank.Client, tmp_path: Path) -> None:
    whole = Module(keeper(filled(keeping, "whole")))
    lightning_run(whole, tmp_path, STEPS // STOP)
    bank = filled(keeping, "stopped")
    first, kept = Module(keeper(bank)), tmp_path / "stopped.ckpt"
    lightning_run(first, tmp_path, 1, checkpoints=True).save_checkpoint(kept)
    assert [made.tag for made in keeping.checkpoints()] == [str(STOP)]
    bank.write(range(256), torch.randn(256, DIM), step=STOP + 3)
    resumed = Module(keeper(bank))
    lightning_run(resumed, tmp_path, STEPS // STOP, kept, checkpoints=True)
    assert first.drawn + resumed.drawn == whole.drawn
    np.testing.assert_array_equal(everything(bank)[0], everything(keeping.bank("whole"))[0])


def test_a_lightning_run_without_a_sampler_is_resumed_with_its_bank_too(keeping: negbank.Client, tmp_path: Path) -> None:
    lightning_run(Unsampled(Keeper(filled(keeping, "whole"))), tmp_path, STEPS // STOP)
    bank, kept = filled(keeping, "stopped"), tmp_path / "stopped.ckpt"
    lightning_run(Unsampled(Keeper(bank)), tmp_path, 1, checkpoints=True).save_checkpoint(kept)
    bank.write(range(256), torch.randn(256, DIM), step=STOP + 3)
    lightning_run(Unsampled(Keeper(bank)), tmp_path, STEPS // STOP, kept, checkpoints=True)
    np.testing.assert_array_equal(everything(bank)[0], everything(keeping.bank("whole"))[0])


def test_a_lightning_run_keeps_as_many_of_the_bank_s_checkpoints_as_it_is_told(location: str, tmp_path: Path) -> None:
    server = ServerProcess(location, "checkpoints.keep=1")
    try:
        client = negbank.connect(server.address)
        every_two = lightning.callbacks.ModelCheckpoint(tmp_path / "models", "{step}", every_n_train_steps=2, save_top_k=-1)
        module = Module(keeper(filled(client, "run")))
        lightning_run(module, tmp_path, 1, checkpoints=True, keep=3, callbacks=(every_two,))
        assert [made.tag for made in client.checkpoints()] == ["2", "4", "6"]
    finally:
        server.stop()


def test_lightning_s_micro_batches_are_one_write(client: negbank.Client, name: str, tmp_path: Path) -> None:
    bank = filled(client, name)
    before = bank.info().sequence
    module = Module(keeper(bank, encode=None))
    lightning_run(module, tmp_path, 1, accumulate_grad_batches=3)
    assert bank.info().sequence == before + 2
    assert module.keeper[0].written == 2 * 3 * BATCH
