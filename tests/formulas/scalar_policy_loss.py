"""The chapter `ppo` a second time: scalar loops from the text, in mpmath's numbers, with their gradients.

Where two sides of a bound meet, a gradient is the one that is not 0.
"""

from collections.abc import Sequence
from typing import Any

import mpmath
import numpy as np

number = mpmath.mpf


def softmax(logits: Sequence[float], temperature: float) -> list[Any]:
    """Probabilities of the vocabulary, 0 where the logit is -inf."""
    weights = [
        number(0) if z == -np.inf else mpmath.exp(number(float(z)) / number(temperature)) for z in logits
    ]
    return [weight / mpmath.fsum(weights) for weight in weights]


def logprob(logits: Sequence[float], token: int, temperature: float) -> tuple[Any, list[Any]]:
    """A token's log-probability, and its gradient in the logits."""
    p = softmax(logits, temperature)
    slopes = [((1 if v == token else 0) - x) / number(temperature) for v, x in enumerate(p)]
    return mpmath.log(p[token]), slopes


def entropy(logits: Sequence[float], temperature: float) -> tuple[Any, list[Any]]:
    """A position's entropy, and its gradient in the logits."""
    p = softmax(logits, temperature)
    total = -mpmath.fsum(x * mpmath.log(x) for x in p if x > 0)
    slopes = [-x * (mpmath.log(x) + total) / number(temperature) if x > 0 else number(0) for x in p]
    return total, slopes


def weights(mask: Any, mode: str, horizon: float | None, empty_rows: str) -> list[list[Any]]:
    """The weight of each token in the aggregate, 0 at masked positions."""
    lengths = [sum(bool(active) for active in row) for row in mask]
    rows = len(lengths) if empty_rows == "count" else sum(1 for length in lengths if length > 0)
    span = number(len(mask[0]) if horizon is None else horizon)
    found = []
    for row, length in zip(mask, lengths, strict=True):
        if mode == "token-mean":
            weight = number(1) / max(sum(lengths), 1)
        elif mode == "seq-mean-token-sum":
            weight = number(1) / max(rows, 1)
        elif mode == "seq-mean-token-mean":
            weight = number(1) / max(rows, 1) / max(length, 1)
        else:
            weight = number(1) / max(rows, 1) / span
        found.append([weight if active else number(0) for active in row])
    return found


def clipped(ratio: Any, advantage: Any, low: Any, high: Any, dual: float | None) -> tuple[Any, Any]:
    """A token's objective, and its derivative in the ratio."""
    if advantage >= 0:
        bound = 1 + number(high)
        return (ratio * advantage, advantage) if ratio <= bound else (bound * advantage, number(0))
    if dual is not None and ratio > dual:
        return number(dual) * advantage, number(0)
    bound = 1 - number(low)
    return (ratio * advantage, advantage) if ratio >= bound else (bound * advantage, number(0))


def policy_loss(batch: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    """The clipped loss of a batch, and its gradient in the log-probabilities."""
    mask, level, clamp = batch["mask"], options["ratio_level"], options["log_ratio_clip"]
    shares = weights(mask, options["aggregation"], options["horizon"], options["empty_rows"])
    loss, gradient = number(0), np.full(mask.shape, number(0), dtype=object)
    for i, row in enumerate(mask):
        active = [t for t, takes_part in enumerate(row) if takes_part]
        changes = {t: _at(batch["logprobs"], i, t) - _at(batch["old_logprobs"], i, t) for t in active}
        for t in active:
            mean = mpmath.fsum(changes.values()) / len(active)
            change = changes[t] if level == "token" else mean
            ratio, slope = _ratio(change, clamp)
            bounds = options["clip_low"], options["clip_high"], options["dual_clip"]
            objective, steepness = clipped(ratio, _at(batch["advantages"], i, t), *bounds)
            weight = number(1)
            if batch["rollout_weights"] is not None:
                weight = _at(batch["rollout_weights"], i, t)
            loss -= shares[i][t] * weight * objective
            for s in active if level == "sequence" else [t]:
                part = number(len(active) if level == "sequence" else 1)
                gradient[i, s] -= shares[i][t] * weight * steepness * slope / part
    return loss, gradient


def kl_penalty_loss(batch: dict[str, Any], coef: float, mode: str) -> tuple[Any, Any, Any]:
    """The penalised loss of a batch, and its gradients in the log-probabilities and in the KL."""
    mask = batch["mask"]
    shares = weights(mask, mode, None, "count")
    loss = number(0)
    through_ratio, through_kl = (np.full(mask.shape, number(0), dtype=object) for _ in range(2))
    for i, t in zip(*np.nonzero(mask), strict=True):
        ratio = mpmath.exp(_at(batch["logprobs"], i, t) - _at(batch["old_logprobs"], i, t))
        advantage = _at(batch["advantages"], i, t)
        loss += shares[i][t] * (number(coef) * _at(batch["kl"], i, t) - ratio * advantage)
        through_ratio[i, t] = -shares[i][t] * ratio * advantage
        through_kl[i, t] = shares[i][t] * number(coef)
    return loss, through_ratio, through_kl


def metrics(
    batch: dict[str, Any], *, clip_low: float, clip_high: float, dual_clip: float | None
) -> dict[str, Any]:
    """The three means over active tokens."""
    found = {name: number(0) for name in ("approx_kl", "clip_fraction", "dual_clip_fraction")}
    active = list(zip(*np.nonzero(batch["mask"]), strict=True))
    for i, t in active:
        change = _at(batch["logprobs"], i, t) - _at(batch["old_logprobs"], i, t)
        ratio, advantage = mpmath.exp(change), _at(batch["advantages"], i, t)
        found["approx_kl"] -= change / len(active)
        too_high, too_low = ratio > 1 + number(clip_high), ratio < 1 - number(clip_low)
        if (advantage > 0 and too_high) or (advantage < 0 and too_low):
            found["clip_fraction"] += number(1) / len(active)
        if dual_clip is not None and advantage < 0 and ratio > dual_clip:
            found["dual_clip_fraction"] += number(1) / len(active)
    return found


def _ratio(change: Any, clamp: float | None) -> tuple[Any, Any]:
    """The ratio of a log-ratio, and its derivative."""
    if clamp is not None and abs(change) > clamp:
        return mpmath.exp(clamp if change > 0 else -number(clamp)), number(0)
    return mpmath.exp(change), mpmath.exp(change)


def _at(x: Any, i: int, t: int) -> Any:
    return number(float(x[i, t]))
