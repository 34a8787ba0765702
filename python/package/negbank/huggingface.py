"""For Hugging Face's Trainer; needs the packages `transformers` and `torch`."""

from __future__ import annotations

from typing import Any

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
    """

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Loads the sampler's state, if the run is resumed."""
        self.keeper.load_state_dict(_states(state).get(self._key, {}).get("attributes", {}))

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
