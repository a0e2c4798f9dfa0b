"""Small models and tokenizers of the tests, and what tells rounding from mistakes."""

import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_impl.train.models import ModelSettings, load_policy
from torch_impl.train.tokens import CharTokenizer

LETTERS = CharTokenizer("abcdefgh +=")
PROMPTS = ["a", "bcd", "efgh+a=", "d c"]


def settings(**options: Any) -> ModelSettings:
    """A model of some thousand weights, in float64 unless the options say otherwise."""
    sizes = {"layers": 2, "heads": 2, "width": 16, "intermediate": 24, "context": 64, "dtype": "float64"}
    return ModelSettings(**{**sizes, **options})


def loud(model: nn.Module, seed: int = 7) -> nn.Module:
    """The same model with weights that are far from uniform probabilities."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.copy_(torch.randn(p.shape, generator=draw, dtype=torch.float64) / p.shape[1] ** 0.5)
    return model


def policy(**options: Any) -> nn.Module:
    """A small Llama that is not near uniform."""
    return loud(load_policy(settings(**options), LETTERS))


def foreign_folder(folder: Path, kind: str) -> Path:
    """A small model of another make, as transformers saves it."""
    t: Any = import_module("transformers")
    sizes = {
        "vocab_size": LETTERS.vocab_size,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    blocks = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    }
    configs: dict[str, Any] = {
        "gpt2": lambda: t.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **sizes),
        "gemma2": lambda: t.Gemma2Config(final_logit_softcapping=2.0, head_dim=8, **sizes, **blocks),
        "cohere": lambda: t.CohereConfig(logit_scale=0.25, **sizes, **blocks),
        "qwen3": lambda: t.Qwen3Config(head_dim=8, **sizes, **blocks),
    }
    model: Any = t.AutoModelForCausalLM.from_config(configs[kind](), dtype=torch.float64)
    loud(model)
    model.save_pretrained(folder)
    return folder


Row = tuple[Tensor, Tensor, Tensor, Tensor]
"""Prompts, their mask, responses, their mask."""


def rows(length: int = 6, seed: int = 3) -> Row:
    """A batch of prompts, padded on the left, and responses of several lengths, padded on the right."""
    draw = torch.Generator().manual_seed(seed)
    prompts = [LETTERS.encode(p) for p in PROMPTS]
    longest = max(map(len, prompts))
    ids = torch.tensor([[LETTERS.pad_id] * (longest - len(p)) + p for p in prompts])
    held = torch.tensor([[False] * (longest - len(p)) + [True] * len(p) for p in prompts])
    lengths = torch.tensor([length, 2, 1, length - 1])
    mask = torch.arange(length) < lengths[:, None]
    responses = torch.randint(LETTERS.pad_id, (len(prompts), length), generator=draw)
    return ids, held, responses.masked_fill(~mask, LETTERS.pad_id), mask


def alone(batch: Row, row: int) -> Row:
    """One row of a batch, without any padding."""
    prompts, prompt_mask, responses, mask = batch
    ids, answer = prompts[row][prompt_mask[row]], responses[row][mask[row]]
    return (
        ids[None],
        torch.ones_like(ids[None], dtype=torch.bool),
        answer[None],
        torch.ones_like(answer[None]) > 0,
    )


def coarse(model: nn.Module) -> nn.Module:
    """The same model in float32."""
    return copy.deepcopy(model).float()


def only_rounded(first: Tensor, second: Tensor, in_float32: Tensor) -> bool:
    """Whether two float64 results are as near to each other as rounding explains.

    `in_float32` is what the first is when all is computed in float32: by how much it is off is what
    roundings make of this very computation, and those of float64 are 2^29 times smaller.
    """
    assert first.dtype == second.dtype == torch.float64
    assert in_float32.dtype == torch.float32
    first, second, in_float32 = (x.detach() for x in (first, second, in_float32))
    return bool((first - second).abs().max() < (first - in_float32.double()).abs().max())
