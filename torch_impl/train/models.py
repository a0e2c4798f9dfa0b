"""Models: language models, critics and reward models. `torch_impl.train.responses` reads numbers off them.

Shapes: B rows, L positions. A language model is what transformers loads from a folder, or a small Llama, with
adapters around it or not. A scorer has a number a position: as a critic the value of what has been written so
far, as a reward model the score of a response, at its last token.
"""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from torch_impl import checks
from torch_impl.precision import wide_dtype, widen, without_autocast
from torch_impl.train import building
from torch_impl.train.building import inner
from torch_impl.train.tokens import Tokenizer


@dataclass
class ModelSettings:
    """Which model, and how it is held."""

    path: str | None = None
    """A folder that transformers loads (config.json, safetensors). None: a small Llama of the sizes below."""
    adapter: str | None = None
    """A folder with LoRA adapters for the model, which are trained on."""
    tokenizer: str = "bytes"
    """"bytes", "chars:ALPHABET", "chars:FILE" or a folder."""
    layers: int = 2
    """Blocks of the small Llama."""
    heads: int = 4
    """Attention heads of a block."""
    width: int = 64
    """Features of a position."""
    intermediate: int | None = None
    """Features inside of a block's MLP. None: four times the width."""
    context: int = 256
    """Most tokens of a prompt and its response together."""
    tied: bool = False
    """Whether the output head is the embedding."""
    vocabulary_multiple: int = 1
    """The embedding gets rows up to a multiple of this, which are no tokens; 64 suits GPUs."""
    dtype: str = "float32"
    """Of the weights: "float32", "bfloat16", "float16" or "float64"."""
    activation_checkpointing: bool = False
    """Keep only what goes into each block, and compute it once more for the gradient."""
    lora_rank: int = 0
    """Rank of LoRA adapters, which alone are trained; 0: none, all weights are trained."""
    lora_alpha: float = 16.0
    """Adapters count α / rank times."""
    lora_targets: list[str] = field(default_factory=list)
    """Names of the layers that get adapters. Empty: what peft holds to be right for the kind of model."""


def load_policy(
    settings: ModelSettings, tokenizer: Tokenizer, *, seed: int = 0, device: torch.device | str = "cpu"
) -> nn.Module:
    """A language model, in training mode, without dropout.

    Parameters
    ----------
    settings : ModelSettings
        Which model.
    tokenizer : Tokenizer
        Says how many tokens there are.
    seed : int
        Of new weights; the global generators are left alone.
    device : device
        New weights are drawn on the CPU: they are the same on every device.

    Raises
    ------
    ValueError
        For a path that is no folder with a model, a model with fewer tokens than the tokenizer, bad sizes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = _config(settings, tokenizer)
        model = building.build(config, "causal", path=settings.path, dtype=settings.dtype)
        return cast(nn.Module, _finished(model, "causal", settings, tokenizer, device))


class ScoreModel(nn.Module):
    """A number a position: a transformers model for sequence classification with one label."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Numbers (B, L) of tokens (B, L), where the attention mask (B, L) is True; others mean nothing."""
        base = inner(self.model)
        hidden = building.hidden_states(base.base_model, ids, attention)
        with without_autocast(hidden.device.type):
            return _scores(base.score, hidden)[..., 0]


def _scores(head: nn.Module, hidden: Tensor) -> Tensor:
    """What a head makes of hidden states, in float32 or wider."""
    if type(head) is nn.Linear:
        width = wide_dtype(head.weight.dtype)
        return linear(hidden.to(width), *(widen(p) for p in head.parameters()))  # a weight, perhaps a bias
    found: Tensor = head(hidden.to(next(head.parameters()).dtype))
    return widen(found)


def load_scorer(
    settings: ModelSettings,
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    from_policy: nn.Module | None = None,
) -> ScoreModel:
    """A critic or a reward model, in training mode, without dropout.

    The backbone is that of a folder (of a language model, or of a scorer with its head), a copy of a
    policy's, its adapters merged, or a new small Llama. A head that is new says 0 everywhere. Arguments and
    errors as for :func:`load_policy`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if from_policy is None:
            config, path = _config(settings, tokenizer), settings.path
            model = building.build(config, "scorer", path=path, dtype=settings.dtype)
        else:
            source = merged(from_policy)
            model = building.build(copy.deepcopy(source.config), "scorer", path=None, dtype=settings.dtype)
            model.base_model.load_state_dict(source.base_model.state_dict())
        return ScoreModel(_finished(model, "scorer", settings, tokenizer, device))


def load_critic(
    settings: ModelSettings, tokenizer: Tokenizer, *, seed: int = 0, device: torch.device | str = "cpu"
) -> ScoreModel:
    """A critic that begins as a policy does. A policy's adapters are merged, and its own are new, as wide."""
    if settings.adapter is None:
        return load_scorer(settings, tokenizer, seed=seed, device=device)
    policy: Any = load_policy(settings, tokenizer, seed=seed)
    rank = policy.peft_config[policy.active_adapter].r
    own = replace(settings, adapter=None, lora_rank=rank)
    return load_scorer(own, tokenizer, seed=seed, device=device, from_policy=policy)


def outline(settings: ModelSettings, tokenizer: Tokenizer, *, scorer: bool = False) -> nn.Module:
    """The shapes of a policy or a scorer, on the meta device: no memory is taken, and no weights are read."""
    with torch.device("meta"):
        kind: building.Kind = "scorer" if scorer else "causal"
        model = building.build(_config(settings, tokenizer), kind, path=None, dtype=settings.dtype)
        found = _finished(model, kind, settings, tokenizer, "meta")
    return ScoreModel(found) if scorer else cast(nn.Module, found)


def save(model: nn.Module, folder: str | Path) -> None:
    """Write a model to a folder, as transformers does (safetensors), or its adapters alone, as peft does."""
    found: Any = model.model if isinstance(model, ScoreModel) else model
    options = {"save_embedding_layers": False} if hasattr(found, "get_base_model") else {}
    found.save_pretrained(str(folder), **options)


def merged(policy: nn.Module) -> Any:
    """The policy, or a copy of it with its adapters merged into its weights."""
    found: Any = policy
    return copy.deepcopy(found).merge_and_unload() if hasattr(found, "get_base_model") else found


def _config(settings: ModelSettings, tokenizer: Tokenizer) -> Any:
    if settings.path is None:
        return building.small_config(
            layers=settings.layers,
            heads=settings.heads,
            width=settings.width,
            intermediate=settings.intermediate,
            context=settings.context,
            vocabulary=tokenizer.vocab_size,
            tied=settings.tied,
        )
    config = building.folder_config(settings.path)
    tokens = getattr(config, "unpadded_vocab_size", config.vocab_size)
    if tokenizer.vocab_size > tokens:
        raise ValueError(
            f"tokenizer must have at most {tokens} tokens, as the model in {settings.path}, "
            f"got {tokenizer.vocab_size}"
        )
    return config


def _finished(
    model: Any,
    kind: building.Kind,
    settings: ModelSettings,
    tokenizer: Tokenizer,
    device: torch.device | str,
) -> Any:
    """With padding, adapters and checkpointing, on its device, in training mode."""
    tokens = getattr(model.config, "unpadded_vocab_size", model.config.vocab_size)
    checks.integer("lora_rank", settings.lora_rank, at_least=0)
    building.pad_vocabulary(model, tokens, settings.vocabulary_multiple)
    model.config.pad_token_id = tokenizer.pad_id
    model.config.eos_token_id = tokenizer.eos_id
    model.to(device)
    if settings.adapter is not None:
        model = building.adapted(model, settings.adapter)
    elif settings.lora_rank:
        model = building.adapt(model, kind, settings.lora_rank, settings.lora_alpha, settings.lora_targets)
    if settings.activation_checkpointing:
        inner(model).activation_checkpointing_enable({"use_reentrant": False})
    building.without_dropout(model)
    return model.train()
