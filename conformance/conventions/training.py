"""Conventions of a training step: when what is old is taken, and whether that is ever taken anew."""

from typing import Any

import numpy as np

from conformance.conventions.family import Convention, Family, Observation
from conformance.conventions.inputs import dense
from reference import training


def _step(*arguments: Any, epochs: int, old: str = "start", **options: Any) -> Any:
    """The update, or one of a single epoch for each: what is old is then that of the epoch's start."""
    if old == "start":
        return training.train_step(*arguments, epochs=epochs, **options)
    table, *others = arguments
    for _ in range(epochs):
        table = training.train_step(table, *others, epochs=1, **options)
    return table


BATCH = {
    "parameters": dense(0, 2, 3),
    "ref_logits": dense(1, 2, 2),
    "states": np.array([[0, 1, 0], [1, 1, 0]]),
    "actions": np.array([[0, 1, 1], [1, 0, 0]]),
    "rewards": dense(2, 2, 3, scale=3.0),
    "mask": np.array([[True, True, True], [True, True, False]]),
    "bootstrap_value": np.array([0.0, 0.5]),
    "group_ids": np.array([0, 0]),
}

FAMILIES = (
    Family(
        "train_step",
        (
            Convention(
                "old",
                {
                    "what is old is that of the start, for all epochs": "start",
                    "what is old is taken anew in each epoch": "epoch",
                },
                "train.ppo-loop",
            ),
        ),
        _step,
        (
            Observation(
                "two epochs of PPO",
                BATCH,
                {"algorithm": "ppo", "optimizer": "sgd", "epochs": 2, "learning_rate": 0.5},
                main=True,
            ),
        ),
    ),
)
