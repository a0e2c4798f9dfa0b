"""Derivation of the clause `contract.partition`: every term of a loss, cut into parts of its batch.

A part is the same call on some of the rows. Its denominator is a number that anyone can count; nothing of
what the reference divides by is asked for here.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import sympy

from reference import group, importance_sampling, kl, logprobs, policy_loss, preference, reward, value_loss
from reference.numbers import symbols
from spec.policy_loss_aggregation import HORIZON, UP, every_mask
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import ZERO

BETA, MARGIN = sympy.symbols("beta m", positive=True)
FIFTH = sympy.Rational(1, 5)
CLIP: Any = {"clip_low": FIFTH, "clip_high": FIFTH}
ROWS, TOKENS = 3, 2
CUTS = (([0], [1, 2]), ([0, 1], [2]), ([0, 2], [1]), ([0], [1], [2]))
MASKS = (
    np.array([[False, False], [True, False], [True, True]]),
    np.array([[True, True], [False, True], [True, False]]),
)
"""A first row without tokens; a hole, and parts of different length."""

Mean = Callable[..., Any]


class Batch(NamedTuple):
    """Arrays of as many rows each; a batch of pairs has no mask."""

    arrays: tuple[Any, ...]
    mask: Any

    def part(self, rows: list[int]) -> "Batch":
        """The batch that some of the rows are."""
        return Batch(tuple(x[rows] for x in self.arrays), None if self.mask is None else self.mask[rows])

    def given(self) -> tuple[Any, ...]:
        """The arguments of a call."""
        return self.arrays if self.mask is None else (*self.arrays, self.mask)


def tokens(*names: str) -> tuple[Any, ...]:
    """Arrays of symbols, one a token."""
    return tuple(symbols.array(name, (ROWS, TOKENS)) for name in names)


def signed(shape: tuple[int, ...]) -> Any:
    """Advantages of either sign, in turns."""
    signs = np.where(np.indices(shape).sum(axis=0) % 2, -1, 1)
    return signs * symbols.array("A", shape, positive=True)


LOGPROBS = np.array([[sympy.log(sympy.Rational(k, 7)) for k in row] for row in ((1, 2), (3, 5), (6, 4))])
OLD_LOGPROBS = np.array([[sympy.log(sympy.Rational(3, 7))] * TOKENS] * ROWS)
"""Ratios of 1/3 to 2, inside the clip and beyond both ends of it, so that every comparison is decided."""


def ways() -> Iterator[dict[str, Any]]:
    """Every mode, with both ways to count rows."""
    for mode, empty in itertools.product(policy_loss.MODES, policy_loss.EMPTY_ROWS):
        yield {"aggregation": mode, "empty_rows": empty, "horizon": HORIZON}


def denominator(batch: Batch, *, aggregation: str = "token-mean", empty_rows: str = "count", **_: Any) -> int:
    """What a mean divides by, horizons aside."""
    if batch.mask is None:
        return len(batch.arrays[0])
    if aggregation == "token-mean":
        return int(batch.mask.sum())
    return len(batch.mask) if empty_rows == "count" else int(batch.mask.any(axis=1).sum())


def _aggregate(x: Any, mask: Any, *, aggregation: str, **options: Any) -> Any:
    return policy_loss.aggregate(x, mask, mode=aggregation, **options)


def _divergence(policy: Any, ref: Any, mask: Any, **options: Any) -> Any:
    return _aggregate(kl.kl_estimate(policy, ref, estimator="k3"), mask, **options)


def _entropy(logit: Any, mask: Any, **options: Any) -> Any:
    """The entropy of two tokens of which the second has the logit 0."""
    logits = np.stack([logit, np.full(logit.shape, ZERO)], axis=-1)
    return _aggregate(logprobs.token_entropy(logits), mask, **options)


def _policy(logprob: Any, old: Any, advantages: Any, weights: Any, mask: Any, **options: Any) -> Any:
    return policy_loss.policy_loss(logprob, old, advantages, mask, weights, **CLIP, **options)


def _sequence(logprob: Any, old: Any, advantages: Any, mask: Any, **options: Any) -> Any:
    return policy_loss.policy_loss(logprob, old, advantages, mask, ratio_level="sequence", **CLIP, **options)


def _grpo(logprob: Any, old: Any, ref: Any, advantages: Any, mask: Any, **options: Any) -> Any:
    return group.grpo_loss(logprob, old, ref, advantages, mask, **CLIP, kl_coef=BETA, **options)


def _value(values: Any, old: Any, returns: Any, mask: Any, **options: Any) -> Any:
    return value_loss.value_loss(values, old, returns, mask, **options)


OF_TOKENS: dict[str, tuple[Mean, tuple[Any, ...]]] = {
    "KL": (_divergence, tokens("l", "q")),
    "entropy": (_entropy, tokens("z")),
    "policy": (_policy, (LOGPROBS, OLD_LOGPROBS, signed((ROWS, TOKENS)), *tokens("w"))),
    "policy, sequence ratio": (_sequence, (LOGPROBS, OLD_LOGPROBS, signed((ROWS, TOKENS)))),
    "value": (_value, tokens("V", "v", "R")),
    "GRPO": (_grpo, (LOGPROBS, OLD_LOGPROBS, *tokens("q"), signed((ROWS,)))),
}
"""Each term of a loss over tokens, with its arrays."""

OF_PAIRS: dict[str, tuple[Mean, tuple[str, ...]]] = {
    "reward model": (lambda *x: reward.reward_model_loss(*x, margin=MARGIN), ("c", "r")),
    **{
        f"DPO, {kind}": (
            lambda *x, kind=kind: preference.dpo_loss(*x, beta=BETA, loss_type=kind),
            ("c", "r", "q", "p"),
        )
        for kind in preference.LOSS_TYPES
    },
    "importance sampling": (importance_sampling.importance_sampling_mean, ("f", "w")),
}
"""Each mean over pairs or samples, with the names of its arrays."""


@derivation("contract.partition", status="verified for B <= 3")
def parts_add_up() -> Numbers:
    """Three rows, cut in every way: parts times their denominators are the whole times its own."""
    for mask, options in itertools.product(every_mask((ROWS, TOKENS)), ways()):
        _adds_up(_aggregate, Batch(tokens("x"), mask), options)
    for mean, arrays in OF_TOKENS.values():
        for mask, options in itertools.product(MASKS, ways()):
            _adds_up(mean, Batch(arrays, mask), options)
    for mean, names in OF_PAIRS.values():
        _adds_up(mean, Batch(tuple(symbols.array(name, (ROWS,)) for name in names), None), {})
    return _mean_of_means()


def _adds_up(mean: Mean, batch: Batch, options: dict[str, Any]) -> None:
    """Compare the sum over parts with the whole; a part without tokens gives 0."""
    whole = denominator(batch, **options) * mean(*batch.given(), **options)
    for cut in CUTS:
        parts = [batch.part(rows) for rows in cut]
        agree(sum(denominator(part, **options) * mean(*part.given(), **options) for part in parts), whole)
        for part in parts:
            if part.mask is not None and not part.mask.any():
                agree(mean(*part.given(), **options), ZERO)


@derivation("contract.partition", status="verified for B <= 3")
def gradients_of_parts() -> None:
    """The written-out gradients: in a part, a denominator times each is the same as in the whole."""
    arrays: dict[Mean, tuple[Any, ...]] = {
        _policy_slopes: (LOGPROBS, OLD_LOGPROBS, signed((ROWS, TOKENS))),
        _value_slopes: tokens("V", "v", "R"),
    }
    for mask, options, (gradient, x) in itertools.product(MASKS, ways(), arrays.items()):
        _slopes_match(gradient, Batch(x, mask), options)
    pair = tuple(symbols.array(name, (ROWS,)) for name in ("c", "r"))
    _slopes_match(lambda *s: reward.reward_model_loss_gradient(UP, *s)[0], Batch(pair, None), {})


def _policy_slopes(logprob: Any, old: Any, advantages: Any, mask: Any, **options: Any) -> Any:
    return policy_loss.policy_loss_gradient(UP, logprob, old, advantages, mask, **CLIP, **options)


def _value_slopes(values: Any, old: Any, returns: Any, mask: Any, **options: Any) -> Any:
    return value_loss.value_loss_gradient(UP, values, old, returns, mask, **options)


def _slopes_match(gradient: Mean, batch: Batch, options: dict[str, Any]) -> None:
    """Compare each row's slopes in a part with those in the whole, each times its denominator."""
    whole = denominator(batch, **options) * gradient(*batch.given(), **options)
    for rows in itertools.chain.from_iterable(CUTS):
        part = batch.part(rows)
        agree(denominator(part, **options) * gradient(*part.given(), **options), whole[rows])


def _mean_of_means() -> Numbers:
    """A critic off by 2 at the one token of the first part, and right at the 3 tokens of the second."""
    values, mask = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), np.array([[True, False, False], [True] * 3])
    nothing = np.zeros(values.shape)
    whole = value_loss.value_loss(values, nothing, nothing, mask)
    rows = ([0], [1])
    parts = [value_loss.value_loss(values[k], nothing[k], nothing[k], mask[k]) for k in rows]
    assert np.mean(parts) == 2 * whole
    assert sum(parts) == 4 * whole
    return {"off by": 2, "tokens": 3, "mean of means": np.mean(parts), "sum": sum(parts), "batch": whole}
