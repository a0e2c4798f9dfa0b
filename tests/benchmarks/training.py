"""Whole steps of trainers: ours and TRL's on the same small model, from the same folder, with the same data.

A call takes some steps: sampling, rewards, the losses and the optimiser's steps. The floor multiplies the
matrices that no way around is known of: every weight with every token, once to generate it, once for the
reference, once for the loss and twice for its gradient. Attention and the sampling itself are not in it.
"""

import json
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from tests.benchmarks import peers
from torch_impl.train import models, tokens
from torch_impl.train.distributed import World
from torch_impl.train.dpo import DPO
from torch_impl.train.grpo import GRPO
from torch_impl.train.models import ModelSettings
from torch_impl.train.settings import (
    DPOOptions,
    DPOSettings,
    GRPOOptions,
    GRPOSettings,
    Optimizer,
    Problems,
    Rollout,
)

Sizes = tuple[int, ...]
Build = Callable[[Sizes, str], tuple[peers.Calls, peers.Call]]
"""Makes the calls of a size on a device, and the floor."""

STEPS = 4
"""Steps of a call."""
SAMPLES = 8
"""Responses to a prompt."""
WIDTH, LAYERS = 128, 4
PROMPT = "{:04d} backwards is "
RATE, KL, BETA = 1e-4, 0.02, 0.1


def grpo(size: Sizes, device: str) -> tuple[peers.Calls, peers.Call]:
    """Steps of GRPO: as many responses, each of as many tokens."""
    responses, length = size
    folder, prompts = _folder(), responses // SAMPLES
    trainer = GRPO(
        GRPOSettings(
            problems=Problems(file=str(folder / "prompts.jsonl")),
            model=ModelSettings(path=str(folder / "model")),
            optimizer=Optimizer(learning_rate=RATE),
            rollout=Rollout(prompts=prompts, together=prompts, samples=SAMPLES, max_new_tokens=length),
            grpo=GRPOOptions(kl_coef=KL),
        ),
        World(torch.device(device)),
    )
    calls: peers.Calls = {"ours": partial(_steps, trainer)}
    calls |= peers.grpo(folder, *size, samples=SAMPLES, kl_coef=KL, steps=STEPS, rate=RATE, device=device)
    read = _products(responses * (length + _prompt_length()), device, forward=2, backward=1)
    written = _products(responses, device, forward=1, backward=0)
    return calls, partial(_in_turn, [*[written] * length, read])


def dpo(size: Sizes, device: str) -> tuple[peers.Calls, peers.Call]:
    """Steps of DPO on as many pairs."""
    [pairs] = size
    folder = _folder()
    trainer = DPO(
        DPOSettings(
            problems=Problems(file=str(folder / "pairs.jsonl")),
            model=ModelSettings(path=str(folder / "model")),
            optimizer=Optimizer(learning_rate=RATE),
            dpo=DPOOptions(rows=pairs, beta=BETA),
        ),
        World(torch.device(device)),
    )
    calls: peers.Calls = {"ours": partial(_steps, trainer)}
    calls |= peers.dpo(folder, pairs, beta=BETA, steps=STEPS, rate=RATE, device=device)
    read = _products(dpo_tokens(size) // STEPS, device, forward=2, backward=1)
    return calls, partial(_in_turn, [read])


def grpo_tokens(size: Sizes) -> int:
    """Tokens that a call generates, where every response has its full length."""
    return STEPS * size[0] * size[1]


def dpo_tokens(size: Sizes) -> int:
    """Tokens that a call reads: prompts and responses."""
    return STEPS * 2 * size[0] * (_prompt_length() + len("0000") + 1)


def _steps(trainer: Any) -> None:
    for number in range(STEPS):
        trainer.step(number)
    trainer.tally.means(trainer.world)


@cache
def _folder() -> Path:
    """A model with its tokenizer, prompts and pairs; there as long as the process."""
    folder = Path(_kept().name)
    settings = ModelSettings(layers=LAYERS, width=WIDTH)
    models.save(models.load_policy(settings, tokens.make(settings.tokenizer)), folder / "model")
    bytes_tokenizer().save_pretrained(folder / "model")
    prompts = [PROMPT.format(number) for number in range(1024)]
    answers = [prompt[3::-1] for prompt in prompts]
    both = list(zip(prompts, answers, strict=True))
    _write(folder / "prompts.jsonl", [{"prompt": p, "answer": a} for p, a in both])
    _write(folder / "pairs.jsonl", [{"prompt": p, "chosen": a, "rejected": p[:4]} for p, a in both])
    return folder


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()  # gone with the process


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of bytes, as transformers has them: the same tokens by the same numbers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {letter: byte for byte, letter in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
    vocabulary |= {"<pad>": len(vocabulary), "<eos>": len(vocabulary) + 1}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]


def _prompt_length() -> int:
    return len(PROMPT.format(0))


def _weights() -> int:
    """Numbers in the matrices of the model, per feature: those of the blocks and of the head."""
    model = models.load_policy(ModelSettings(layers=LAYERS, width=WIDTH), tokens.ByteTokenizer())
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed_tokens" not in name]
    return sum(p.numel() for p in matrices) // WIDTH


def _products(rows: int, device: str, *, forward: int, backward: int) -> Callable[[], None]:
    """Products of so many rows with all weights, forward and backward so often."""
    x, weight = torch.randn(rows, WIDTH, device=device), torch.randn(WIDTH, _weights(), device=device)

    def call() -> None:
        for _ in range(forward + backward):
            y = x @ weight
        for _ in range(backward):
            torch.mm(x.T, y)

    return call


def _in_turn(calls: list[Callable[[], None]]) -> None:
    """Calls one after the other, as often as there are steps."""
    for _ in range(STEPS):
        for call in calls:
            call()
