"""Runs of several processes: `torchrun --nproc-per-node 2 -m tests.training.several FOLDER`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tests.training import small_runs
from torch_impl.train import distributed, loop
from torch_impl.train.distributed import World

RUNS: list[tuple[str, str, dict[str, Any]]] = [
    ("ppo", "ddp", {"kl_coef": 0.1, "minibatches": 2, "truncation": "end"}),
    ("grpo", "ddp", {"kl_coef": 0.1, "aggregation": "seq-mean-token-mean"}),
    ("grpo", "fsdp", {"kl_coef": 0.1, "minibatches": 2}),
    ("dpo", "fsdp", {}),
    ("ppo", "fsdp", {"critic_steps": 1}),
    ("reward-model", "ddp", {}),
    ("trpo", "ddp", {"cg_iters": 4}),
]


def ends(world: World, out: Path, number: int) -> dict[str, Tensor]:
    """The weights that a run ends with, by name."""
    algorithm, shard, options = RUNS[number]
    made = small_runs.settings(algorithm, out, steps=2, **options)
    made.optimizer = replace(made.optimizer, micro_rows=3)
    trainer = small_runs.begin(algorithm, made, replace(world, shard=shard))
    with patch.object(LlamaRMSNorm, "forward", small_runs.wide_norm):
        loop.run(trainer, out)
    chosen = state_dict.StateDictOptions(full_state_dict=True)
    found = state_dict.get_model_state_dict(trainer.trained, options=chosen)
    return {name: x.detach().clone() for name, x in found.items() if isinstance(x, Tensor)}


def main(folder: Path) -> None:
    """Leave the weights of each run."""
    torch.set_num_threads(1)
    world = distributed.start("cpu")
    for number in range(len(RUNS)):
        found = ends(world, folder / str(number), number)
        if world.leads:
            torch.save(found, folder / f"{number}.pt")
        world.wait()
    distributed.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
