"""For Hugging Face's Trainer; needs the packages `transformers` and `torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .scalars import real, whole
from .torch.first_rank import on_first_rank
from .torch.keeper import Keeper


class BankCallback(TrainerCallback):
    """Keeps a bank up with a `transformers.Trainer`'s model, and the sampler's state in its checkpoints.

        callback = BankCallback(Keeper(bank, encode=lambda model, ids: model.encode(texts[ids]), every=100, sampler=sampler))

        class ContrastiveTrainer(Trainer):
            def compute_loss(self, model, inputs, **kwargs):
                anchors, keys = model(inputs["anchor"]), model(inputs["positive"])
                negs = sampler.sample(anchors, positive_ids=inputs["ids"])
                callback.keeper.collect(keys, ids=inputs["ids"])
                return info_nce((anchors * keys).sum(1), similarities(anchors, negs.embeddings[negs.indices]))

        ContrastiveTrainer(model, args, train_dataset=dataset, callbacks=[callback]).train()

    What `keeper.collect` took is written when the optimiser has stepped, once for all accumulated micro-batches; what an
    evaluation collects is not. The sampler's
    state is saved in `trainer_state.json`, under "negbank/" and the bank's name, and loaded by
    `train(resume_from_checkpoint=...)`. One process saves it, and every rank loads it.

    `checkpoints`: the bank is kept too, whenever the trainer saves, with the step as its tag, and brought back when the run is
    resumed; the server needs a `checkpoints.location`. It has the rows that all ranks wrote until then. If it can't be kept or
    brought back, every rank raises.

    `keep`: how many checkpoints of the bank stay, the newest, as in `Bank.checkpoint`; 0: as many as the server's
    `checkpoints.keep` says. The trainer deletes its own by itself, so give at least one more than its `save_total_limit`: the
    bank is kept before the model is (where a later callback or an evaluation decides to save, after it), and a run that ends
    between the two goes on from the checkpoint before. A model that stays longer, as the best one may, has no bank then, and to
    resume from it raises `NotFound`.

    `timeout`: seconds that the bank may take to be kept, or to be brought back, while all ranks wait; then every rank raises
    `DeadlineExceeded`. It may be longer than the timeout of the ranks' process group, which is not used up by the wait.
    """

    def __init__(self, keeper: Keeper, *, checkpoints: bool = False, keep: SupportsIndex = 0, timeout: float = 3600.0) -> None:
        self.keeper = keeper
        self.checkpoints, self.keep, self.timeout = checkpoints, whole(keep, "keep"), real(timeout, "timeout")
        self._kept: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Loads the sampler's state, and brings the bank back, if the run is resumed."""
        self.keeper.load_state_dict(_states(state).get(self._key, {}).get("attributes", {}))
        self._kept = None
        if self.checkpoints and state.global_step > 0:
            _on_first_rank(args, lambda: self.keeper.bank.restore(state.global_step, timeout=self.timeout))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Drops what the evaluation collected, and keeps in mind what it drew: a resumed run goes on behind it."""
        self.keeper.forget()
        self._note_state(state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keeps the bank beside the model that was saved, if that could not be foreseen."""
        self._keep_bank(args, state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keeps the bank if the model is about to be saved."""
        if control.should_save:
            self._keep_bank(args, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Writes the step's rows, encodes the stalest entries anew when it is time, and keeps the bank if a save is next."""
        model = kwargs["model"]
        self.keeper.end_of_step(model, state.global_step, rank=args.process_index, world_size=args.world_size)
        self._note_state(state)
        # Not after the model: a run that was killed between the two would have nothing to go on from.
        if control.should_save:
            self._keep_bank(args, state)

    def _note_state(self, state: TrainerState) -> None:
        # The state of the trainer is saved before anybody is told that it is.
        _states(state)[self._key] = {"args": {}, "attributes": self.keeper.state_dict()}

    def _keep_bank(self, args: TrainingArguments, state: TrainerState) -> None:
        bank, step = self.keeper.bank, state.global_step
        if self.checkpoints and self._kept != step:
            _on_first_rank(args, lambda: bank.checkpoint(step, replace=True, keep=self.keep, timeout=self.timeout))
            self._kept = step

    @property
    def _key(self) -> str:
        return f"negbank/{self.keeper.bank.name}"


def _on_first_rank(args: TrainingArguments, work: Callable[[], object]) -> None:
    alone = not (distributed.is_available() and distributed.is_initialized())

    def broadcast(value: Any) -> Any:
        told = [value]
        distributed.broadcast_object_list(told, 0)
        return told[0]

    if alone:
        work()
    else:
        on_first_rank(work, rank=args.process_index, barrier=distributed.barrier, broadcast=broadcast)


def _states(state: TrainerState) -> dict[str, Any]:
    """What becomes of the callbacks' states, whose annotation tells what it is made of instead."""
    kept: Any = state.stateful_callbacks
    states: dict[str, Any] = kept
    return states
