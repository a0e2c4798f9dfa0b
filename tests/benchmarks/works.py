"""What is timed: the work, its sizes, our call, the peers', and the floor that no call can go below."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from conformance.adapters import torch_impl
from tests.benchmarks import peers, training
from torch_impl.linear import linear_logprobs, linear_objective
from torch_impl.logprobs import token_logprobs_and_entropy
from torch_impl.one_pass import row_sums

GAMMA, LAM = 0.99, 0.95
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Contest:
    """Calls that do the same work, by who makes them, "ours" first, and the floor."""

    calls: peers.Calls
    floor: peers.Call


@dataclass(frozen=True)
class Aim:
    """How many times as fast as a peer ours should be, or how many times the floor's time it may take."""

    against: str
    ratio: float
    size: Sizes | None = None
    """At this size; None: at each."""

    @property
    def words(self) -> str:
        """The aim as the page says it."""
        if self.against == "floor":
            return f"at most {self.ratio:.3g} × the floor"
        times = "" if self.ratio == 1.0 else f"{self.ratio:.3g} times "
        return f"{times}as fast as {self.against}"


@dataclass(frozen=True, eq=False)
class Work:
    """One piece of work at several sizes."""

    name: str
    letters: str
    """What the numbers of a size are, as in "B, T"."""
    sizes: tuple[Sizes, ...]
    build: Callable[..., Contest]
    floor: str = "copy"
    """What the floor does: copies as many bytes as go in and come out, or multiplies."""
    aims: tuple[Aim, ...] = ()
    traced: float = 2.0
    """Memory is traced, event by event, of calls that take less than so many seconds."""
    tokens: Callable[[Sizes], int] | None = None
    """How many tokens a call of a size is about, where that is what people count."""


def copying(*arrays: Tensor) -> peers.Call:
    """Copy half of the bytes of some arrays: as many are read and written as these have."""
    source = torch.zeros(sum(x.nbytes for x in arrays) // 8, device=arrays[0].device)
    return partial(torch.empty_like(source).copy_, source)


def rows(size: Sizes, device: str, kept: float) -> tuple[list[Tensor], Tensor]:
    """Four arrays of numbers, and a mask with holes."""
    generator = torch.Generator(device).manual_seed(0)
    numbers = [torch.randn(size, generator=generator, device=device) for _ in range(4)]
    return numbers, torch.rand(size, generator=generator, device=device) < kept


def gae(size: Sizes, device: str, kept: float, *, padded: bool = False) -> Contest:
    """Advantages of rows with holes, or without, or of different lengths, from half of the columns on."""
    [rewards, values, *_], mask = rows(size, device, kept)
    if padded:
        lengths = torch.linspace(size[1] / 2, size[1], size[0], device=device).ceil()
        mask = torch.arange(size[1], device=device) < lengths[:, None]
    last = torch.zeros(size[0], device=device)
    ours = partial(torch_impl.gae, rewards, values, mask, last, gamma=GAMMA, lam=LAM)
    others = peers.gae(rewards, values, mask, GAMMA, LAM, whole=kept == 1.0 and not padded)
    return Contest({"ours": ours, **others}, copying(rewards, values, mask, rewards))


def whiten(size: Sizes, device: str) -> Contest:
    """Masked whitening of a batch."""
    [x, *_], mask = rows(size, device, 0.9)
    return Contest(
        {"ours": partial(torch_impl.whiten, x, mask), **peers.whiten(x, mask)}, copying(x, mask, x)
    )


def logprobs(size: Sizes, device: str, backward: bool, entropy: bool) -> Contest:
    """Log-probabilities of tokens, and entropies, with and without the gradient in the logits."""
    generator = torch.Generator(device).manual_seed(0)
    logits = 3 * torch.randn(1, *size, generator=generator, device=device)
    tokens = torch.randint(size[1], (1, size[0]), generator=generator, device=device)
    logits.requires_grad_(backward)

    def ours() -> list[Tensor]:
        if entropy:
            return list(token_logprobs_and_entropy(logits, tokens))
        return [torch_impl.token_logprobs(logits, tokens)]

    calls: dict[str, Any] = {"ours": ours, **peers.logprobs(logits, tokens, entropy=entropy)}
    if backward:
        return Contest(_differentiated(calls, logits), copying(logits, logits))
    return Contest(calls, copying(logits))


def output_head(size: Sizes, device: str) -> Contest:
    """From hidden states to log-probabilities, with gradients in them and in the head."""
    positions, features, vocabulary = size
    generator = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(1, positions, features, generator=generator, device=device).requires_grad_()
    weight = torch.randn(vocabulary, features, generator=generator, device=device) / features**0.5
    weight.requires_grad_()
    tokens = torch.randint(vocabulary, (1, positions), generator=generator, device=device)
    leaves = hidden, weight

    def all_logits() -> list[Tensor]:
        found = torch.log_softmax(hidden @ weight.T, dim=-1)
        return [found.gather(-1, tokens[..., None])]

    def in_the_forward() -> list[Tensor]:
        return [linear_objective(*leaves, tokens, lambda logprobs, *_: logprobs.sum(), whole_rows=False)]

    calls: dict[str, Any] = {
        "ours": in_the_forward,
        "ours, log-probabilities": lambda: list(linear_logprobs(*leaves, tokens)[:1]),
        "all logits at once": all_logits,
    }
    rows, head = hidden.detach()[0], weight.detach()
    slopes = torch.randn(min(256, positions), vocabulary, device=device)

    def products() -> object:
        for begin in range(0, positions, len(slopes)):
            chunk = rows[begin : begin + len(slopes)]
            few = slopes[: len(chunk)]
            found = torch.mm(chunk, head.T), torch.mm(few, head), torch.mm(few.T, chunk)
        return found

    return Contest(_differentiated(calls, *leaves), products)


def policy_loss(size: Sizes, device: str) -> Contest:
    """The dual-clip loss and its gradient."""
    [x, noise, advantages, _], mask = rows(size, device, 0.9)
    logprobs = -x.abs()
    old = logprobs + 0.2 * noise
    logprobs.requires_grad_()
    given = logprobs, old, advantages, mask
    calls: dict[str, Any] = {"ours": partial(torch_impl.policy_loss, *given, **peers.CLIPS)}
    calls |= peers.policy_loss(*given)
    return Contest(_differentiated(calls, logprobs), copying(*given, logprobs))


def value_loss(size: Sizes, device: str) -> Contest:
    """The clipped value loss and its gradient."""
    [values, old, returns, _], mask = rows(size, device, 0.9)
    values.requires_grad_()
    given = values, old, returns, mask
    calls: dict[str, Any] = {"ours": partial(torch_impl.value_loss, *given, clip=0.2)}
    calls |= peers.value_loss(*given, clip=0.2)
    return Contest(_differentiated(calls, values), copying(*given, values))


def preference_loss(size: Sizes, device: str) -> Contest:
    """The loss of pairs of responses, from log-probabilities of their tokens, and the gradient in these."""
    pairs, _ = size
    [x, reference, *_], mask = rows((2 * pairs, size[1]), device, 0.9)
    logprobs, sums = (-x.abs()).requires_grad_(), torch_impl.sequence_logprobs(-reference.abs(), mask)

    def ours() -> Tensor:
        policy = torch_impl.sequence_logprobs(logprobs, mask)
        return torch_impl.dpo_loss(policy[:pairs], policy[pairs:], sums[:pairs], sums[pairs:], beta=0.1)

    return Contest(_differentiated({"ours": ours}, logprobs), copying(logprobs, mask, logprobs))


def reward_model_loss(size: Sizes, device: str) -> Contest:
    """The loss of pairs of scores, and the gradient in them; ours, and with the slope kept on the way."""
    generator = torch.Generator(device).manual_seed(0)
    chosen, rejected = (torch.randn(size, generator=generator, device=device) for _ in range(2))
    given = chosen.requires_grad_(), rejected.requires_grad_()

    def in_one_pass() -> Tensor:
        ahead = chosen - rejected
        return row_sums(ahead[None], torch.ones_like(ahead[None], dtype=torch.bool), slopes) / len(ahead)

    def slopes(x: Tensor, _: slice) -> tuple[Tensor, Tensor]:
        return -torch.nn.functional.logsigmoid(x), -torch.sigmoid(-x)

    calls = {"ours": partial(torch_impl.reward_model_loss, *given), "in one pass": in_one_pass}
    return Contest(_differentiated(calls, *given), copying(*given, *given))


def group_advantages(size: Sizes, device: str) -> Contest:
    """Advantages in groups of equal size."""
    responses, groups = size
    scores = torch.randn(responses, device=device, generator=torch.Generator(device).manual_seed(0))
    ids = torch.arange(responses, device=device) % groups
    calls: peers.Calls = {
        "ours": partial(torch_impl.group_advantages, scores, ids),
        **peers.group_advantages(scores, ids),
    }
    return Contest(calls, copying(scores, ids, scores))


def trained(size: Sizes, device: str, trainer: training.Build) -> Contest:
    """Steps of a trainer, on one processor as all else."""
    return Contest(*trainer(size, device))


def _differentiated(calls: dict[str, Any], *leaves: Tensor) -> peers.Calls:
    """The calls with the gradients of the sum of what they return."""

    def both(call: Any) -> object:
        found = call()
        results = found if isinstance(found, list) else [found]
        return torch.autograd.grad(sum(x.sum() for x in results), leaves)

    return {name: partial(both, call) for name, call in calls.items()}


LOGITS = ((256, 32000), (1024, 32000), (4096, 32000))
ROWS = ((64, 512), (64, 2048), (256, 2048), (256, 8192))
LONGER = (*ROWS, (16, 131072))
WORKS = (
    Work(
        "GAE, mask with holes", "B, T", LONGER, partial(gae, kept=0.9),
        aims=(Aim("verl", 20.0), Aim("verl", 50.0, (64, 512))),
    ),
    Work("GAE, rows of different lengths", "B, T", LONGER, partial(gae, kept=1.0, padded=True)),
    Work(
        "GAE, no mask", "B, T", LONGER, partial(gae, kept=1.0),
        aims=(
            Aim("floor", 5.0, (256, 8192)), Aim("torchrl", 30.0, (256, 8192)), Aim("scipy", 1.0, (64, 512)),
        ),
    ),
    Work("whitening", "B, T", ROWS, whiten, aims=(Aim("verl", 8.0, (256, 8192)),)),
    Work(
        "log-probabilities from logits", "N, V", LOGITS, partial(logprobs, backward=False, entropy=False),
        aims=(Aim("trl", 2.0, LOGITS[-1]),),
    ),
    Work(
        "log-probabilities and entropies from logits", "N, V", LOGITS,
        partial(logprobs, backward=False, entropy=True),
        aims=(Aim("trl", 2.0, LOGITS[-1]), Aim("verl", 5.0, LOGITS[-1])),
    ),
    Work(
        "log-probabilities from logits, and gradient", "N, V", LOGITS,
        partial(logprobs, backward=True, entropy=False), traced=60.0, aims=(Aim("trl", 2.0, LOGITS[-1]),),
    ),
    Work(
        "output head to log-probabilities, and gradients", "N, D, V",
        ((512, 512, 8192), (1024, 512, 16384), (2048, 512, 32000)),
        output_head, floor="matrix products", traced=60.0, aims=(Aim("floor", 1 / 0.85),),
    ),
    Work(
        "dual-clip policy loss, and gradient", "B, T", ROWS, policy_loss,
        aims=(Aim("floor", 8.0, (256, 8192)),),
    ),
    Work("clipped value loss, and gradient", "B, T", ROWS, value_loss),
    Work(
        "preference loss from token log-probabilities, and gradient", "pairs, T",
        ((16, 512), (16, 2048), (64, 2048), (64, 8192)), preference_loss,
    ),
    Work("reward-model loss, and gradient", "pairs", ((64,), (1024,), (16384,)), reward_model_loss),
    Work(
        "group advantages", "responses, groups", ((256, 32), (1024, 128), (4096, 512), (16384, 2048)),
        group_advantages, aims=(Aim("verl, vectorised", 1.2, (4096, 512)),),
    ),
    Work(
        "GRPO, 4 steps of training", "responses, T", ((16, 16), (64, 16), (256, 16)),
        partial(trained, trainer=training.grpo), floor="matrix products", traced=60.0,
        tokens=training.grpo_tokens,
    ),
    Work(
        "DPO, 4 steps of training", "preferences", ((16,), (64,), (256,)),
        partial(trained, trainer=training.dpo), floor="matrix products", traced=60.0,
        tokens=training.dpo_tokens,
    ),
)  # fmt: skip
TINY = {
    "B, T": (2, 5),
    "N, V": (3, 7),
    "N, D, V": (3, 2, 7),
    "pairs, T": (2, 5),
    "pairs": (3,),
    "responses, groups": (6, 3),
    "responses, T": (8, 3),
    "preferences": (4,),
}
"""Sizes at which every call is tried, for each kind of size."""
