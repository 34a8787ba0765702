"""For Lightning; needs the package `lightning` or `pytorch-lightning`, and `torch`.

The two have a `Trainer` and a `Callback` each, and neither's trainer takes the other's callback. Where both are installed,
import yours before this module: the callback here is of the family that is imported already, and of `lightning.pytorch` if both
are, or neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex

if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    try:
        from lightning.pytorch import Callback  # type: ignore[import-not-found, no-redef, unused-ignore]
    except ImportError:
        from pytorch_lightning import Callback

from .scalars import real, whole
from .torch.first_rank import on_first_rank
from .torch.keeper import COLUMNS, Keeper


class BankCallback(Callback):
    """Keeps a bank up with a LightningModule, and the sampler's state in its checkpoints.

        class Contrastive(LightningModule):
            def training_step(self, batch, batch_idx):
                anchors, keys = ...
                negs = sampler.sample(anchors, positive_ids=batch["ids"])
                loss = info_nce((anchors * keys).sum(1), similarities(anchors, negs.embeddings[negs.indices]))
                return {"loss": loss, "embeddings": keys, "ids": batch["ids"]}

        keeper = Keeper(bank, encode=lambda module, ids: module(images[ids]), every=100, sampler=sampler)
        Trainer(callbacks=[BankCallback(keeper)]).fit(...)

    What `training_step` returns as "embeddings", with "ids", "labels", "groups" and "weights" where there are any, is written
    when the optimiser has stepped, once for all accumulated micro-batches; `keeper.collect` takes rows as well.

    `checkpoints`: the bank is kept too, whenever the trainer saves, with the step as its tag, and brought back when the run is
    resumed; the server needs a `checkpoints.location`. It has the rows that all ranks wrote until then. If it can't be kept or
    brought back, every rank raises. A checkpoint that was made without the bank can't be resumed with it: `NotFound`.

    `keep`: how many checkpoints of the bank stay, the newest, as in `Bank.checkpoint`; 0: as many as the server's
    `checkpoints.keep` says. The trainer deletes its own by itself, so give at least one more than it keeps (`save_top_k`, and
    the last one): the bank is kept before the model is. A model that stays longer, as the best ones may, has no bank then, and
    to resume from it raises `NotFound`.

    `timeout`: seconds that the bank may take to be kept, or to be brought back, while all ranks wait; then every rank raises
    `DeadlineExceeded`. It may be longer than the timeout of the ranks' process group, which is not used up by the wait.
    """

    def __init__(self, keeper: Keeper, *, checkpoints: bool = False, keep: SupportsIndex = 0, timeout: float = 3600.0) -> None:
        self.keeper = keeper
        self.checkpoints, self.keep, self.timeout = checkpoints, whole(keep, "keep"), real(timeout, "timeout")
        self._step = 0
        self._resumed = False

    @property
    def state_key(self) -> str:
        """One bank, one state."""
        return self._generate_state_key(bank=self.keeper.bank.name)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Counts from where the run begins, and brings the bank back if it is resumed."""
        self._step = trainer.global_step
        if self.checkpoints and self._resumed:
            self._resumed = False
            _on_first_rank(trainer, lambda: self.keeper.bank.restore(self._step, timeout=self.timeout))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Collects the micro-batch's rows; if the optimiser has stepped, ends the step."""
        if isinstance(outputs, Mapping) and outputs.get("embeddings") is not None:
            self.keeper.collect(outputs["embeddings"], **{name: outputs.get(name) for name in COLUMNS})
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self.keeper.end_of_step(pl_module, self._step, rank=trainer.global_rank, world_size=trainer.world_size)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes what a last step that was not made has left."""
        self.keeper.write(self._step, rank=trainer.global_rank, world_size=trainer.world_size)

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state."""
        return self.keeper.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Has the sampler go on where the checkpoint was taken."""
        self.keeper.load_state_dict(state_dict)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Takes note that the run is resumed."""
        # Not in load_state_dict: Lightning keeps no empty state, which that of a keeper without a sampler is.
        self._resumed = trainer.state.fn == "fit"

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keeps the bank beside the model that is being saved."""
        if self.checkpoints:
            bank, step = self.keeper.bank, trainer.global_step
            _on_first_rank(trainer, lambda: bank.checkpoint(step, replace=True, keep=self.keep, timeout=self.timeout))


def _on_first_rank(trainer: Any, work: Callable[[], object]) -> None:
    strategy = trainer.strategy
    if trainer.world_size == 1:
        work()
    else:
        on_first_rank(work, rank=trainer.global_rank, barrier=strategy.barrier, broadcast=strategy.broadcast)
