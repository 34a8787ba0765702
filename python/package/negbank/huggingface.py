"""For Hugging Face's Trainer; needs the packages `transformers` and `torch`."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

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

    What `keeper.collect` took is written when the optimiser has stepped, once for all accumulated micro-batches. The sampler's
    state is saved in `trainer_state.json`, under "negbank/" and the bank's name, and loaded by
    `train(resume_from_checkpoint=...)`. One process saves it, and every rank loads it.

    `checkpoints`: the bank is kept too, whenever the trainer saves, with the step as its tag, and brought back when the run is
    resumed; the server needs a `checkpoints.location`.
    """

    def __init__(self, keeper: Keeper, *, checkpoints: bool = False) -> None:
        self.keeper = keeper
        self.checkpoints = checkpoints

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Loads the sampler's state, and brings the bank back, if the run is resumed."""
        self.keeper.load_state_dict(_states(state).get(self._key, {}).get("attributes", {}))
        if self.checkpoints and state.global_step > 0:
            if args.process_index == 0:
                self.keeper.bank.restore(state.global_step)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.barrier()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keeps the bank beside the model that was saved."""
        if self.checkpoints and args.process_index == 0:
            self.keeper.bank.checkpoint(state.global_step, replace=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Writes the step's rows, and every so often encodes the stalest entries anew."""
        model = kwargs["model"]
        self.keeper.end_of_step(model, state.global_step, rank=args.process_index, world_size=args.world_size)
        # The state of the trainer is saved before anybody is told that it is.
        _states(state)[self._key] = {"args": {}, "attributes": self.keeper.state_dict()}

    @property
    def _key(self) -> str:
        return f"negbank/{self.keeper.bank.name}"


def _states(state: TrainerState) -> dict[str, Any]:
    """What becomes of the callbacks' states, whose annotation tells what it is made of instead."""
    kept: Any = state.stateful_callbacks
    states: dict[str, Any] = kept
    return states
