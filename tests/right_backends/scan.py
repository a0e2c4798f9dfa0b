"""A right backend in JAX: `lax.scan` from right to left, compiled once for each dtype.

XLA compiles for each shape, so batches are padded to one of two that hold whatever the suite draws.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# What one run has compiled, the next one need not.
CONFIG: Any = jax.config
CONFIG.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "rlspec-jax"))
CONFIG.update("jax_persistent_cache_min_compile_time_secs", 0.0)

array_library = "jax"
name = f"scan (jax {jax.__version__})"

SHAPES = ((8, 80), (8, 4104), (1296, 8))
"""Few shapes, because each takes a compilation."""


def _in_one_shape(compiled: Callable[..., Array]) -> Callable[..., Array]:
    """Pad the arguments, call what is compiled for the shape, and cut the result; a constant of the loss."""

    def operation(*arrays: Array, **options: Any) -> Array:
        constants = [np.asarray(lax.stop_gradient(x)) for x in arrays]
        dtype = constants[0].dtype
        shape = next(s for s in SHAPES if all(np.less_equal(constants[0].shape, s)))
        padded = [np.zeros(shape[: x.ndim], x.dtype) for x in constants]
        for whole, x in zip(padded, constants, strict=True):
            whole[tuple(map(slice, x.shape))] = x
        scalars = {k: np.asarray(x, dtype) if isinstance(x, float) else x for k, x in options.items()}
        result = np.asarray(compiled(*padded, **scalars))
        cut: Array = jax.device_put(result[tuple(map(slice, constants[0].shape))])
        return cut

    return operation


@_in_one_shape
@jax.jit
def td_errors(rewards: Array, values: Array, mask: Array, bootstrap_value: Array, *, gamma: Array) -> Array:
    return _td_errors(rewards, values, mask, bootstrap_value, gamma)


@_in_one_shape
@jax.jit
def n_step_advantages(
    rewards: Array, values: Array, mask: Array, bootstrap_value: Array, *, gamma: Array, n: Array
) -> Array:
    def one_step_more(_: Array, returns: Array) -> Array:
        return rewards + gamma * _following(returns, mask, bootstrap_value)

    returns: Array = lax.fori_loop(0, n, one_step_more, values)
    return returns - values


@_in_one_shape
@partial(jax.jit, static_argnames="masked")
def gae(
    rewards: Array,
    values: Array,
    mask: Array,
    bootstrap_value: Array,
    *,
    gamma: Array,
    lam: Array,
    masked: str = "skip",
) -> Array:
    return _advantages(rewards, values, mask, bootstrap_value, gamma, lam, masked)


@_in_one_shape
@partial(jax.jit, static_argnames="masked")
def lambda_returns(
    rewards: Array,
    values: Array,
    mask: Array,
    bootstrap_value: Array,
    *,
    gamma: Array,
    lam: Array,
    masked: str = "skip",
) -> Array:
    return values + _advantages(rewards, values, mask, bootstrap_value, gamma, lam, masked)


@_in_one_shape
@jax.jit
def discounted_returns(rewards: Array, mask: Array, bootstrap_value: Array, *, gamma: Array) -> Array:
    return _sums(rewards, mask, bootstrap_value, gamma)


@_in_one_shape
@partial(jax.jit, static_argnames="shift_mean")
def whiten(x: Array, mask: Array, *, shift_mean: bool = True, ddof: Array, eps: Array) -> Array:
    count = mask.sum()
    mean = jnp.where(mask, x, 0).sum() / jnp.maximum(count, 1).astype(x.dtype)
    centred = jnp.where(mask, x - mean, 0)
    variance = (centred**2).sum() / jnp.maximum(count - ddof, 1).astype(x.dtype)
    whitened = centred * lax.rsqrt(variance + eps) + (0 if shift_mean else mean)
    return jnp.where(count > ddof, whitened, 0)


def _advantages(
    rewards: Array,
    values: Array,
    mask: Array,
    bootstrap_value: Array,
    gamma: Array,
    lam: Array,
    masked: str,
) -> Array:
    steps = mask
    if masked == "zero":
        rewards, values = jnp.where(mask, rewards, 0), jnp.where(mask, values, 0)
        steps = lax.cummax(mask.astype(jnp.int32), axis=1, reverse=True) == 1
    errors = _td_errors(rewards, values, steps, bootstrap_value, gamma)
    return _sums(errors, steps, jnp.zeros_like(bootstrap_value), gamma * lam)


def _td_errors(rewards: Array, values: Array, mask: Array, bootstrap_value: Array, gamma: Array) -> Array:
    return rewards + gamma * _following(values, mask, bootstrap_value) - values


def _following(x: Array, mask: Array, last: Array) -> Array:
    """x at the next active position of the row, `last` where there is none."""

    def step(following: Array, column: tuple[Array, Array]) -> tuple[Array, Array]:
        own, active = column
        return jnp.where(active, own, following), following

    return lax.scan(step, last, (x.T, mask.T), reverse=True)[1].T


def _sums(x: Array, mask: Array, last: Array, discount: Array) -> Array:
    """S_t = x_t + discount · S at the next active position, from `last` behind the row's end."""

    def step(following: Array, column: tuple[Array, Array]) -> tuple[Array, Array]:
        own, active = column
        result = jnp.where(active, own + discount * following, following)
        return result, result

    return lax.scan(step, last, (x.T, mask.T), reverse=True)[1].T
