"""A right backend in JAX: everything but GAE and the trust region under `jit`, differentiated by `jax.vjp`.

XLA compiles for each shape, so arrays are padded to a few sizes, and what is compiled takes the true one as
numbers. The modes that go together in any way are numbers too; each choice of others is compiled for itself.
"""

import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.lax import stop_gradient

# What one run has compiled, the next one need not.
CONFIG: Any = jax.config
CONFIG.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "rlspec-jax"))
CONFIG.update("jax_persistent_cache_min_compile_time_secs", 0.0)

array_library = "jax"
name = f"jax losses (jax {jax.__version__})"

SIZES = (64, 2056, 2**16 + 8)

MODES = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm")
LEVELS = ("token", "sequence", "sequence-token")
NUMBERED = {"mode": MODES, "aggregation": MODES, "empty_rows": ("count", "drop"), "ratio_level": LEVELS}
"""Options of which what is compiled gets the place."""

Shape = tuple[Array, ...]
"""The shape of the first argument without its padding, as numbers."""


def _compiled(*modes: str, fill: float = 0.0) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Compile for each value of some modes; pad floating-point arguments with `fill`, and cut the result."""

    def decorate(function: Callable[..., Array]) -> Callable[..., Array]:
        compiled = jax.jit(function, static_argnames=modes)
        numbered = NUMBERED.keys() - set(modes)

        @wraps(function)
        def operation(*arrays: Array | None, **options: Any) -> Array:
            assert arrays[0] is not None
            shape = arrays[0].shape
            padded = [x if x is None else _padded(x, fill) for x in arrays]
            given = {k: NUMBERED[k].index(x) if k in numbered else x for k, x in options.items()}
            result = compiled(*padded, shape=tuple(map(float, shape)), **given)
            return lax.slice(result, (0,) * result.ndim, shape[: result.ndim])

        return operation

    return decorate


def _padded(x: Array, fill: float) -> Array:
    behind = [(0, next(size for size in SIZES if n <= size) - n, 0) for n in x.shape]
    return lax.pad(x, jnp.asarray(fill if jnp.issubdtype(x.dtype, jnp.floating) else 0, x.dtype), behind)


@_compiled()
def importance_ratio(
    logprobs: Array, old_logprobs: Array, *, shape: Shape, log_ratio_clip: float | None = 20.0
) -> Array:
    return jnp.exp(_clipped(logprobs - stop_gradient(old_logprobs), log_ratio_clip))


@_compiled()
def sequence_importance_ratio(logprobs: Array, old_logprobs: Array, mask: Array, *, shape: Shape) -> Array:
    return jnp.exp(_row_means(jnp.where(mask, logprobs - stop_gradient(old_logprobs), 0), mask))


@_compiled("mode")
def truncated_importance_weights(
    old_logprobs: Array, rollout_logprobs: Array, *, shape: Shape, cap: float, mode: str = "truncate"
) -> Array:
    weights = jnp.exp(stop_gradient(old_logprobs - rollout_logprobs))
    return jnp.minimum(weights, cap) if mode == "truncate" else jnp.where(weights <= cap, weights, 0)


@_compiled("self_normalized")
def importance_sampling_mean(
    f_values: Array, log_weights: Array, *, shape: Shape, self_normalized: bool = False
) -> Array:
    log_weights = jnp.where(_inside(log_weights, shape), log_weights, -jnp.inf)
    if self_normalized:
        return (jax.nn.softmax(log_weights) * f_values).sum()
    return (jnp.exp(log_weights) * f_values).sum() / shape[0]


@_compiled()
def effective_sample_size(log_weights: Array, *, shape: Shape) -> Array:
    shares = jax.nn.softmax(jnp.where(_inside(log_weights, shape), log_weights, -jnp.inf))
    return 1 / (shares**2).sum()


@_compiled("estimator")
def kl_estimate(
    logprobs: Array,
    ref_logprobs: Array,
    *,
    shape: Shape,
    estimator: str = "k1",
    log_ratio_clip: float | None = None,
    value_clip: float | None = None,
) -> Array:
    log_ratio = _clipped(logprobs - stop_gradient(ref_logprobs), log_ratio_clip)
    estimate = _estimate(log_ratio, estimator)
    if value_clip is None:
        return estimate
    beyond = jnp.abs(estimate) > value_clip
    inside = _estimate(jnp.where(beyond, 0, log_ratio), estimator)
    return jnp.where(beyond, stop_gradient(_clipped(estimate, value_clip)), inside)


@_compiled(fill=-jnp.inf)
def kl_divergence(logits: Array, ref_logits: Array, *, shape: Shape) -> Array:
    logprobs, ref_logprobs = jax.nn.log_softmax(logits), jax.nn.log_softmax(stop_gradient(ref_logits))
    possible, excluded = logits > -jnp.inf, ref_logits == -jnp.inf
    log_ratio = jnp.where(possible & ~excluded, logprobs - ref_logprobs, 0)
    divergence = (jnp.exp(logprobs) * log_ratio).sum(-1)
    return jnp.where((possible & excluded).any(-1), jnp.inf, divergence)


@_compiled(fill=-jnp.inf)
def token_logprobs(logits: Array, tokens: Array, *, shape: Shape, temperature: float = 1.0) -> Array:
    logprobs = jax.nn.log_softmax(_wide(logits) / temperature)
    return jnp.take_along_axis(logprobs, tokens[..., None], axis=-1)[..., 0].astype(logits.dtype)


@_compiled(fill=-jnp.inf)
def token_entropy(logits: Array, *, shape: Shape, temperature: float = 1.0) -> Array:
    logprobs = jax.nn.log_softmax(_wide(logits) / temperature)
    p = jnp.exp(logprobs)
    return -(p * jnp.where(p > 0, logprobs, 0)).sum(-1).astype(logits.dtype)


@_compiled()
def aggregate(
    x: Array,
    mask: Array,
    *,
    shape: Shape,
    mode: int,
    horizon: float | None = None,
    empty_rows: int = 0,
) -> Array:
    return _aggregate(x, mask, shape, mode, horizon, empty_rows)


@_compiled()
def policy_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    mask: Array,
    rollout_weights: Array | None = None,
    *,
    shape: Shape,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    ratio_level: int = 0,
    aggregation: int = 0,
    horizon: float | None = None,
    empty_rows: int = 0,
    log_ratio_clip: float | None = 20.0,
) -> Array:
    ratio = _ratio(logprobs, old_logprobs, mask, ratio_level, log_ratio_clip)
    advantages = stop_gradient(jnp.where(mask, advantages, 0))
    objective = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip_low, 1 + clip_high) * advantages)
    if dual_clip is not None:
        objective = jnp.where(advantages < 0, jnp.maximum(objective, dual_clip * advantages), objective)
    if rollout_weights is not None:
        objective = objective * stop_gradient(jnp.where(mask, rollout_weights, 0))
    return _aggregate(-objective, mask, shape, aggregation, horizon, empty_rows)


@_compiled()
def kl_penalty_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    kl: Array,
    mask: Array,
    *,
    shape: Shape,
    kl_coef: float,
    aggregation: int,
) -> Array:
    ratio = _ratio(logprobs, old_logprobs, mask, 0, None)
    loss = kl_coef * jnp.where(mask, kl, 0) - ratio * stop_gradient(jnp.where(mask, advantages, 0))
    return _aggregate(loss, mask, shape, aggregation, None, 0)


@_compiled()
def value_loss(
    values: Array,
    old_values: Array,
    returns: Array,
    mask: Array,
    *,
    shape: Shape,
    clip: float | None = None,
    aggregation: int = 0,
    horizon: float | None = None,
    empty_rows: int = 0,
) -> Array:
    values, old_values, returns = (jnp.where(mask, x, 0) for x in (values, old_values, returns))
    old_values, returns = stop_gradient((old_values, returns))
    squared = (values - returns) ** 2
    if clip is not None:
        squared = jnp.maximum(squared, (old_values + _clipped(values - old_values, clip) - returns) ** 2)
    return _aggregate(squared / 2, mask, shape, aggregation, horizon, empty_rows)


@_compiled()
def reward_model_loss(chosen: Array, rejected: Array, *, shape: Shape, margin: float = 0.0) -> Array:
    losses = -jax.nn.log_sigmoid(chosen - rejected - margin)
    return jnp.where(_inside(chosen, shape), losses, 0).sum() / jnp.maximum(shape[0], 1)


@_compiled("average")
def sequence_logprobs(token_logprobs: Array, mask: Array, *, shape: Shape, average: bool = False) -> Array:
    chosen = jnp.where(mask, token_logprobs, 0)
    return _row_means(chosen, mask) if average else chosen.sum(1)


@_compiled()
def implicit_rewards(policy_logprobs: Array, ref_logprobs: Array, *, shape: Shape, beta: float) -> Array:
    return beta * (policy_logprobs - stop_gradient(ref_logprobs))


@_compiled("loss_type")
def dpo_loss(
    policy_chosen: Array,
    policy_rejected: Array,
    ref_chosen: Array,
    ref_rejected: Array,
    *,
    shape: Shape,
    beta: float,
    label_smoothing: float = 0.0,
    loss_type: str = "sigmoid",
) -> Array:
    margin = (policy_chosen - policy_rejected) - stop_gradient(ref_chosen - ref_rejected)
    losses = {
        "sigmoid": -(1 - label_smoothing) * jax.nn.log_sigmoid(beta * margin)
        - label_smoothing * jax.nn.log_sigmoid(-beta * margin),
        "hinge": jax.nn.relu(1 - beta * margin),
        "ipo": (margin - 1 / (2 * beta)) ** 2,
    }[loss_type]
    return jnp.where(_inside(margin, shape), losses, 0).sum() / jnp.maximum(shape[0], 1)


@_compiled("scale", "ddof")
def group_advantages(
    scores: Array, group_ids: Array, *, shape: Shape, scale: str = "std", ddof: int = 1, eps: float = 1e-6
) -> Array:
    distances, same = _distances(scores, group_ids, shape)
    count = same.sum(1).astype(distances.dtype)
    centred = distances - _sums(distances, same) / count
    deviation = jnp.sqrt(_sums(centred**2, same) / jnp.maximum(count - ddof, 1))
    advantages = centred / (deviation + eps) if scale == "std" else centred
    varied = (same & (distances != 0)).any(1)
    return jnp.where(varied, advantages, 0).astype(scores.dtype)


@_compiled()
def rloo_advantages(scores: Array, group_ids: Array, *, shape: Shape) -> Array:
    distances, same = _distances(scores, group_ids, shape)
    others = jnp.maximum(same.sum(1) - 1, 1).astype(distances.dtype)
    return (distances - (_sums(distances, same) - distances) / others).astype(scores.dtype)


@_compiled()
def grpo_loss(
    logprobs: Array,
    old_logprobs: Array,
    ref_logprobs: Array,
    advantages: Array,
    mask: Array,
    *,
    shape: Shape,
    clip_low: float,
    clip_high: float,
    kl_coef: float,
    aggregation: int,
    horizon: float | None = None,
    empty_rows: int = 0,
    ratio_level: int = 0,
    log_ratio_clip: float | None = 20.0,
) -> Array:
    ratio = _ratio(logprobs, old_logprobs, mask, ratio_level, log_ratio_clip)
    advantages = stop_gradient(jnp.where(mask, advantages[:, None], 0))
    objective = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip_low, 1 + clip_high) * advantages)
    divergence = _estimate(jnp.where(mask, logprobs - stop_gradient(ref_logprobs), 0), "k3")
    return _aggregate(kl_coef * divergence - objective, mask, shape, aggregation, horizon, empty_rows)


def _wide(logits: Array) -> Array:
    """In float32 at least: of quotients, XLA rounds the largest, and not what it is taken from."""
    return logits.astype(jnp.float32) if logits.dtype.itemsize == 2 else logits


def _inside(x: Array, shape: Shape) -> Array:
    """True where a vector is not padding."""
    return jnp.arange(len(x)) < shape[0]


def _clipped(x: Array, bound: float | None) -> Array:
    return x if bound is None else jnp.clip(x, -bound, bound)


def _estimate(log_ratio: Array, estimator: str) -> Array:
    match estimator:
        case "k1":
            return log_ratio
        case "k2":
            return log_ratio**2 / 2
        case "k3":
            return jnp.expm1(-log_ratio) + log_ratio
        case _:
            return jnp.abs(log_ratio)


def _ratio(logprobs: Array, old_logprobs: Array, mask: Array, level: int, bound: float | None) -> Array:
    """The ratio of each token, or of its row, with the gradient that belongs to it."""
    log_ratio = jnp.where(mask, logprobs - stop_gradient(old_logprobs), 0)
    means = jnp.where(mask, _row_means(log_ratio, mask)[:, None], 0)
    own = stop_gradient(means) + log_ratio - stop_gradient(log_ratio)
    return jnp.exp(_clipped(lax.select_n(jnp.asarray(level), log_ratio, means, own), bound))


def _row_means(x: Array, mask: Array) -> Array:
    return x.sum(1) / jnp.maximum(mask.sum(1), 1).astype(x.dtype)


def _aggregate(
    x: Array, mask: Array, shape: Shape, mode: int, horizon: float | None, empty_rows: int
) -> Array:
    """The mean of x over the active tokens, or over rows."""
    chosen, place = jnp.where(mask, x, 0), jnp.asarray(mode)
    mean, sums = chosen.sum() / jnp.maximum(mask.sum(), 1).astype(x.dtype), chosen.sum(1)
    divided = sums / jnp.asarray(shape[1] if horizon is None else horizon, x.dtype)
    rows = lax.select_n(jnp.maximum(place - 1, 0), _row_means(chosen, mask), sums, divided)
    full = jnp.maximum(mask.any(1).sum(), 1).astype(x.dtype)
    counted = jnp.where(empty_rows == 0, jnp.asarray(shape[0], x.dtype), full)
    return jnp.where(place == 0, mean, rows.sum() / counted)


def _distances(scores: Array, group_ids: Array, shape: Shape) -> tuple[Array, Array]:
    """Each reward less the first one of its group, and which rewards are of one group."""
    rewards = stop_gradient(scores.astype(jnp.float32) if scores.dtype == jnp.float16 else scores)
    inside = _inside(scores, shape)
    same = (group_ids[:, None] == group_ids) & inside[:, None] & inside | jnp.eye(len(scores), dtype=bool)
    return rewards - rewards[jnp.argmax(same, axis=1)], same


def _sums(x: Array, same: Array) -> Array:
    """The sum of each one's group."""
    return jnp.where(same, x, 0).sum(1)
