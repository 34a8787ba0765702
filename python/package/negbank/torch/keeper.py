"""A bank that keeps up with the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, SupportsIndex

import torch
from torch import Tensor, nn

from ..bank import Bank
from ..errors import DeadlineExceeded, InvalidArgument, Unavailable
from ..prefetch import Prefetch
from ..sampler import Sampler
from ..scalars import whole
from ..writes import Stage

COLUMNS = ("ids", "labels", "groups", "weights")
AT_ONCE = 256

# A model and ids int64 [R] of entries, to embeddings [R, d] by the model as it is.
Encode = Callable[[nn.Module, Tensor], Tensor]


class Keeper:
    """Keeps a bank up with the model: writes what each step encodes, and now and then encodes the stalest entries anew.

    `negbank.huggingface.BankCallback` and `negbank.lightning.BankCallback` are this for their trainers; in a loop of your own:

        keeper = Keeper(bank, encode=lambda model, ids: model(images[ids]), every=100, rows=512)
        for step, (ids, batch) in enumerate(loader):
            embeddings = model(batch)
            ...
            keeper.collect(embeddings, ids=ids)
            optimizer.step()
            keeper.end_of_step(model, step + 1)
    """

    def __init__(
        self,
        bank: Bank,
        *,
        encode: Encode | None = None,
        every: SupportsIndex = 100,
        rows: SupportsIndex = 1024,
        sampler: Sampler | Prefetch[Any] | None = None,
        staged: bool = False,
        on_unavailable: Literal["raise", "skip"] | None = None,
    ) -> None:
        """
        Args:
            bank: keyed or a queue.
            encode: of a keyed bank: encodes entries by their ids with the model as it is; called without gradients, in
                evaluation mode, with 256 ids at most. None: entries change by what is collected only.
            every: steps between two rounds of encoding the stalest entries.
            rows: entries of a round; ranks share them.
            sampler: draws from this bank: its draws see what is written here, and its state goes into the checkpoints.
            staged: the ranks' writes of a step are applied as one, see `Stage`. Every rank then has to collect in every step:
                where one does not, the others raise DeadlineExceeded, which names it, and nothing is written.
            on_unavailable: "raise"; or "skip": a write that finds no server, or no answer in time, is left out, and a
                RuntimeWarning says so once each time the server goes. A step waits for it as long as `connect`'s `retries` and
                `timeout` allow, for a bank that is being recovered as long as `timeout`. Default: "skip" where the client was
                connected with on_unavailable="in_batch", so that training goes on without the server as a whole, else "raise".

        The rows of a write that failed are not kept: after DeadlineExceeded they may have been written, and written again they
        would move a keyed bank's entries twice. Training that goes on lacks that step's rows in the bank, no more.
        """
        if encode is not None:
            bank._must_be("keyed", "enqueue: a queue's stale entries leave by themselves")
        if on_unavailable is None:
            on_unavailable = "skip" if bank._on_unavailable == "in_batch" else "raise"
        if on_unavailable not in ("raise", "skip"):
            raise InvalidArgument.of("on_unavailable", f'{on_unavailable!r} is none: give "raise" or "skip"')
        self.bank, self.sampler = bank, sampler
        self.written = 0
        """Rows written, collected and encoded anew."""
        self._encode, self._staged, self._skips = encode, staged, on_unavailable == "skip"
        self._every, self._rows = max(1, whole(every, "every")), whole(rows, "rows")
        self._collected: list[dict[str, Any]] = []
        self._away = False

    def collect(
        self, embeddings: Tensor, *, ids: Any = None, labels: Any = None, groups: Any = None, weights: Any = None
    ) -> None:
        """Takes rows [R, d] that the step encoded, to be written at its end; once for each micro-batch.

        They are detached and copied. The columns are those of `Bank.write`, tensors or what makes one; the same of them in each
        call of a step.
        """
        rows = {"ids": ids, "labels": labels, "groups": groups, "weights": weights}
        here = {name: torch.as_tensor(column).detach().clone() for name, column in rows.items() if column is not None}
        if self._collected and self._collected[0].keys() != {"embeddings", *here}:
            raise InvalidArgument.of("collect", "has other columns than before in this step")
        self._collected.append({"embeddings": embeddings.detach().clone(), **here})

    def forget(self) -> None:
        """Drops what was collected since the last step's end: it is of no training step, such as that of an evaluation."""
        self._collected = []

    def end_of_step(self, model: nn.Module, step: int, *, rank: int = 0, world_size: int = 1) -> None:
        """Writes what was collected, as of the model before its latest update, and on every `every`th step encodes anew.

        `step`: updates of the model so far.
        """
        self.write(step - 1, rank=rank, world_size=world_size)
        if self._encode is not None and step % self._every == 0:
            self.refresh(model, step, rank=rank, world_size=world_size)

    def write(self, step: int, *, rank: int = 0, world_size: int = 1) -> None:
        """Writes what was collected, if there is any; `step` is that of the model that encoded it."""
        if not self._collected:
            return
        columns = {name: torch.cat([part[name] for part in self._collected]) for name in self._collected[0]}
        self._collected = []
        stage = Stage(step, rank, world_size) if self._staged else None
        self._reaching(lambda: self._write(step=max(step, 0), stage=stage, **columns))

    def refresh(self, model: nn.Module, step: int, *, rank: int = 0, world_size: int = 1) -> int:
        """Encodes this rank's share of the stalest entries anew and replaces them; returns how many."""
        if self._encode is None:
            raise InvalidArgument.of("encode", "is needed to encode entries anew")
        stalest = self._reaching(lambda: self.bank.stalest(self._rows))
        if stalest is None:
            return 0
        ids = torch.from_numpy(stalest.ids.astype("int64"))[rank::world_size]
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(ids), AT_ONCE):
                    part = ids[start : start + AT_ONCE]
                    write = partial(self._write, self._encode(model, part), ids=part, step=step, momentum=0.0)
                    self._reaching(write)
        finally:
            model.train(training)
        return len(ids)

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state; {} without one."""
        return {} if self.sampler is None else self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Has the sampler go on where `state_dict` was taken."""
        if self.sampler is not None and state:
            self.sampler.load_state_dict(state)

    def _write(self, embeddings: Tensor, **columns: Any) -> None:
        if self.sampler is not None:
            self.sampler.write(embeddings, **columns)
        elif self.bank.kind == "keyed":
            self.bank.write(columns.pop("ids", None), embeddings, **columns)
        else:
            self.bank.enqueue(embeddings, **columns)
        self.written += len(embeddings)

    def _reaching(self, call: Callable[[], Any]) -> Any:
        """What the call says; None where the server is away and that is to be skipped."""
        try:
            answer = call()
        except (Unavailable, DeadlineExceeded) as fault:
            if not self._skips:
                raise
            if not self._away:
                warnings.warn(f"bank {self.bank.name!r} is not kept up with the model: {fault}", RuntimeWarning, stacklevel=4)
            self._away = True
            return None
        self._away = False
        return answer
