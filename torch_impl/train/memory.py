"""Memory of a training step by PPO and by GRPO for one model: predicted, and measured.

Clause: `train.memory`. PPO trains a policy and a critic, GRPO a policy alone; either may keep a reference and
a reward model. What is trained has weights, gradients and two averages of AdamW; what is not has weights. The
activations are those of one micro-batch of one network: networks are differentiated one after the other.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from tabulate import tabulate
from torch import Tensor, nn

from torch_impl import checks
from torch_impl.group import grpo_loss
from torch_impl.policy_loss import policy_loss
from torch_impl.precision import wide_dtype
from torch_impl.train.building import inner
from torch_impl.train.models import ModelSettings, load_policy, load_scorer, outline
from torch_impl.train.responses import response_logprobs, response_values
from torch_impl.train.step import update
from torch_impl.train.tokens import Tokenizer
from torch_impl.train.tracing import Trace
from torch_impl.value_loss import value_loss

ALGORITHMS = ("ppo", "grpo")
TRAINED = {"ppo": ("policy", "critic"), "grpo": ("policy",)}
FROZEN = ("reference", "reward model")
SCORERS = ("critic", "reward model")
ACTIVATIONS = "activations"

STEP = 4
"""Bytes of the number of steps, of which AdamW keeps one for each tensor."""

Parts = dict[str, int]
"""Bytes by part: "policy: weights", ..., "activations"."""


@dataclass(frozen=True)
class Batch:
    """What is differentiated at once."""

    rows: int = 8
    prompt: int = 32
    """Tokens of a prompt, the longest."""
    response: int = 32
    """Tokens of a response, the longest."""

    def __post_init__(self) -> None:
        for name, x in (("rows", self.rows), ("prompt", self.prompt), ("response", self.response)):
            checks.integer(name, x, at_least=1)


def predicted(settings: ModelSettings, tokenizer: Tokenizer, algorithm: str, batch: Batch) -> Parts:
    """Bytes of each part, counted from shapes. Raises ValueError for a model that is not built as a Llama."""
    checks.choice("algorithm", algorithm, ALGORITHMS)
    parts: Parts = {}
    kept = []
    for name in TRAINED[algorithm]:
        model = outline(settings, tokenizer, scorer=name in SCORERS)
        trained = [p for p in model.parameters() if p.requires_grad]
        parts[f"{name}: weights"] = _bytes([*model.parameters(), *model.buffers()])
        parts[f"{name}: gradients"] = _bytes(trained)
        parts[f"{name}: optimiser"] = 2 * _bytes(trained) + STEP * len(trained)
        kept.append(activations(model, batch, scorer=name in SCORERS))
    for name in FROZEN:
        model = outline(_frozen(settings), tokenizer, scorer=name in SCORERS)
        parts[f"{name}: weights"] = _bytes([*model.parameters(), *model.buffers()])
    return {**parts, ACTIVATIONS: max(kept)}


def activations(model: nn.Module, batch: Batch, *, scorer: bool = False) -> int:
    """Bytes that a Llama keeps of a forward pass for its gradient, b to a number, over N = B · L tokens.

    A block keeps ten vectors of the width D a token (what goes into norms, normed, and out of them; queries,
    keys, values, and what attention gives), four of the width I of its MLP, a number for each head and two
    norms, and its mask, L² a row. With activation checkpointing it keeps one vector, and one block is
    computed again at a time. Norms are float32. With adapters it keeps less.
    """
    config = inner(model).config
    if config.model_type != "llama":
        raise ValueError(
            f"path must hold a model of type 'llama' to predict activations, got {config.model_type!r}"
        )
    dtype = next(model.parameters()).dtype
    b, wide, norm = dtype.itemsize, wide_dtype(dtype).itemsize, torch.float32.itemsize
    length = batch.prompt + batch.response - (0 if scorer else 1)
    tokens, width, heads = batch.rows * length, config.hidden_size, config.num_attention_heads
    vectors = (8 * b + 2 * norm) * width + 4 * b * config.intermediate_size
    block = tokens * (vectors + wide * heads + 2 * norm) + b * batch.rows * length**2
    blocks = config.num_hidden_layers * block
    if inner(model).is_activation_checkpointing:
        blocks = config.num_hidden_layers * tokens * b * width + block
    head = wide if scorer else b  # a scorer's head is wide, and so is what goes into it
    ends = tokens * (width * (norm + b + head) + norm + 2 * b * config.head_dim)
    if head != b:
        ends += width * head
    known = 0 if scorer else batch.rows * batch.response * 4 * wide  # of the softmax of each position
    return int(blocks + ends + known)


def measured(
    settings: ModelSettings, tokenizer: Tokenizer, algorithm: str, batch: Batch, *, device: str = "cpu"
) -> Parts:
    """Bytes of each part, as PyTorch's allocator counts them: models are made, and two steps taken.

    On the CPU its events are traced. What operations need for a while is among the activations.
    """
    checks.choice("algorithm", algorithm, ALGORITHMS)
    trace = Trace(device)
    models: dict[str, nn.Module] = {}
    names = TRAINED[algorithm]
    with trace:
        for name in (*names, *FROZEN):
            with trace.phase(f"{name}: weights"):
                models[name] = _load(settings, tokenizer, name, device)
        trained = [models[name] for name in names]
        optimizer = torch.optim.AdamW([p for m in trained for p in m.parameters() if p.requires_grad])
        losses = _losses(models, algorithm, _tokens(tokenizer, batch, device))
        update(optimizer, losses)
        for name in names:
            with trace.phase(f"{name}: gradients"):
                models[name].zero_grad()
        with trace.phase(ACTIVATIONS):
            update(optimizer, losses)
        for name in names:
            with trace.phase(f"{name}: optimiser"):
                _forget(optimizer, models[name])
    parts = {name: abs(memory.kept) for name, memory in trace.phases.items()}
    gradients = sum(parts[f"{name}: gradients"] for name in names)
    return {**parts, ACTIVATIONS: trace.phases[ACTIVATIONS].peak - gradients}


def table(
    settings: ModelSettings,
    tokenizer: Tokenizer,
    batch: Batch | None = None,
    *,
    device: str = "cpu",
    measure: bool = True,
) -> str:
    """What each part takes by PPO and by GRPO, and how much less GRPO takes, as Markdown.

    Parameters
    ----------
    settings, tokenizer
        The model of all networks.
    batch : Batch or None
        What is differentiated at once.
    device : str
        What is measured on.
    measure : bool
        False predicts only, which takes no memory: models may be of any size.
    """
    batch = Batch() if batch is None else batch
    columns: dict[str, dict[str, Parts]] = {
        "predicted": {a: predicted(settings, tokenizer, a, batch) for a in ALGORITHMS}
    }
    if measure:
        columns["measured"] = {a: measured(settings, tokenizer, a, batch, device=device) for a in ALGORITHMS}
    rows = f"{batch.rows} rows of {batch.prompt} + {batch.response} tokens"
    return "\n\n".join(
        [
            f"Megabytes of one step of AdamW, {settings.dtype}, {rows}. {PEAK if measure else ''}".rstrip(),
            _parts(columns),
            FOLKLORE,
            _saved(columns),
        ]
    )


PEAK = (
    "Activations are measured as what the peak has beyond all gradients, though some of these come after it, "
    "when part of the activations is gone."
)
FOLKLORE = (
    "GRPO is said to need 25% less memory than PPO, or 50% less. It saves the critic; what part of the whole "
    "that is depends on what else is kept:"
)

KEPT = {
    "reference and reward model": FROZEN,
    "reference, rewards by a rule": FROZEN[:1],
    "neither": (),
}
"""What is kept beside what is trained."""


def total(parts: Parts, kept: tuple[str, ...] = FROZEN) -> int:
    """Bytes of a step that keeps these of the networks that are not trained."""
    left_out = {f"{name}: weights" for name in FROZEN if name not in kept}
    return sum(x for part, x in parts.items() if part not in left_out)


def _parts(columns: dict[str, dict[str, Parts]]) -> str:
    names = list(columns["predicted"]["ppo"])
    found = {f"{a.upper()}, {how}": columns[how][a] for a in ALGORITHMS for how in columns}
    lines = [[name, *(_megabytes(parts.get(name, 0)) for parts in found.values())] for name in names]
    lines.append(["all", *(_megabytes(total(parts)) for parts in found.values())])
    return tabulate(lines, ["part", *found], tablefmt="pipe", disable_numparse=True)


def _saved(columns: dict[str, dict[str, Parts]]) -> str:
    lines = [
        [
            name,
            *(
                f"{1 - total(found['grpo'], kept) / total(found['ppo'], kept):.0%}"
                for found in columns.values()
            ),
        ]
        for name, kept in KEPT.items()
    ]
    return tabulate(
        lines, ["kept", *(f"less, {how}" for how in columns)], tablefmt="pipe", disable_numparse=True
    )


def _megabytes(x: int) -> str:
    return f"{x / 1e6:.3f}"


def _forget(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    for p in model.parameters():
        optimizer.state.pop(p, None)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(x.nbytes for x in tensors)


def _frozen(settings: ModelSettings) -> ModelSettings:
    """What is not trained has no adapters, and keeps nothing."""
    return replace(settings, lora_rank=0, adapter=None, activation_checkpointing=False)


def _load(settings: ModelSettings, tokenizer: Tokenizer, name: str, device: str) -> nn.Module:
    load = load_scorer if name in SCORERS else load_policy
    if name not in FROZEN:
        return load(settings, tokenizer, device=device)
    return load(_frozen(settings), tokenizer, device=device).requires_grad_(False)


def _tokens(tokenizer: Tokenizer, batch: Batch, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prompts of two lengths, so that there is padding, and full responses, with their masks."""
    draw = torch.Generator().manual_seed(0)
    ids = [
        torch.randint(tokenizer.vocab_size, (batch.rows, length), generator=draw).to(device)
        for length in (batch.prompt, batch.response)
    ]
    masks = [torch.ones_like(x, dtype=torch.bool) for x in ids]
    if batch.prompt > 1:
        masks[0][0, 0] = False
    return ids[0], masks[0], ids[1], masks[1]


def _losses(
    models: dict[str, nn.Module], algorithm: str, tokens: tuple[Tensor, Tensor, Tensor, Tensor]
) -> list[Callable[[], Tensor]]:
    """The losses of a step, one a network."""
    mask = tokens[3]
    truncated = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)

    def actor() -> Tensor:
        logprobs, _ = response_logprobs(models["policy"], *tokens)
        nothing = torch.zeros_like(logprobs)
        if algorithm == "ppo":
            return policy_loss(logprobs, nothing, nothing, mask, clip_low=0.2, clip_high=0.2)
        return grpo_loss(
            logprobs,
            nothing,
            nothing,
            nothing[:, 0],
            mask,
            clip_low=0.2,
            clip_high=0.2,
            kl_coef=0.04,
            aggregation="token-mean",
        )

    def critic() -> Tensor:
        values, _ = response_values(models["critic"], *tokens, truncated=truncated)
        return value_loss(values, torch.zeros_like(values), torch.zeros_like(values), mask)

    return [actor, critic] if algorithm == "ppo" else [actor]
