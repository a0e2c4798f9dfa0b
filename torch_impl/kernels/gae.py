"""λ-returns on a GPU: one program a row, from its right end to its left in tiles, one pass over memory.

A tile is a scan over affine maps. What comes from the right of a token is the value v and the return g of the
next time step. A token that is one turns them into its own value V and return r + γ((1-λ) v + λ g), any other
leaves them alone: v' = a v + b, g' = c v + d g + e. Maps compose, so a scan finds every token's own.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from torch_impl.precision import wide_dtype

TILE = 1024
"""Tokens of a tile, at most."""


@triton.jit
def _compose(a1, b1, c1, d1, e1, a2, b2, c2, d2, e2):
    """The second map after the first, which is that of the tokens to the right."""
    return a2 * a1, a2 * b1 + b2, c2 * a1 + d2 * c1, d2 * d1, c2 * b1 + d2 * e1 + e2


@triton.jit
def _or(x, y):
    return x | y


@triton.jit
def _rows(
    rewards, values, mask, last, factors, result,
    width,
    ADVANTAGES: tl.constexpr, HOLES_ARE_STEPS: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Returns of one row, or advantages; 0 where the mask does not hold."""
    row = tl.program_id(0).to(tl.int64)
    start = row * width
    of_value, of_return = tl.load(factors), tl.load(factors + 1)
    v = tl.load(last + row).to(WIDE)
    g = v
    seen = tl.zeros((), tl.int32)
    places = tl.arange(0, TILE)
    for tile in range(tl.cdiv(width, TILE) - 1, -1, -1):
        at = tile * TILE + places
        inside = at < width
        active = tl.load(mask + start + at, mask=inside, other=0) != 0
        r = tl.where(active, tl.load(rewards + start + at, mask=active, other=0.0).to(WIDE), 0.0)
        own = tl.where(active, tl.load(values + start + at, mask=active, other=0.0).to(WIDE), 0.0)
        step = active
        if HOLES_ARE_STEPS:
            behind = tl.associative_scan(active.to(tl.int32), 0, _or, reverse=True) | seen
            step = inside & (behind != 0)
            seen = tl.max(behind, axis=0)
        here = step.to(WIDE)
        passes = 1.0 - here
        a, b, c, d, e = tl.associative_scan(
            (passes, here * own, here * of_value, passes + here * of_return, here * r),
            0, _compose, reverse=True,
        )  # fmt: skip
        returns = c * v + d * g + e
        found = returns - own if ADVANTAGES else returns
        tl.store(result + start + at, tl.where(active, found, 0.0).to(result.dtype.element_ty), mask=inside)
        first = places == 0
        v = tl.sum(tl.where(first, tl.where(a != 0.0, v, b), 0.0), axis=0)  # a v + b, and not 0 · ∞
        g = tl.sum(tl.where(first, returns, 0.0), axis=0)


def lambda_returns(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str,
    advantages: bool,
) -> Tensor:
    """Returns, or these less the values, as :func:`torch_impl.gae.lambda_returns`; arguments were checked."""
    rewards, values, mask, last = (x.contiguous() for x in (rewards, values, mask, bootstrap_value))
    result = torch.empty_like(rewards)
    rows, width = rewards.shape
    if result.numel() == 0:
        return result
    dtypes = {wide_dtype(x.dtype) for x in (rewards, values, last)}
    dtype, wide = (torch.float64, tl.float64) if torch.float64 in dtypes else (torch.float32, tl.float32)
    tile = min(TILE, triton.next_power_of_2(width))
    # As an array, because a number that is passed to a kernel is made float32.
    factors = torch.full((2,), gamma * (1 - lam), dtype=dtype, device=rewards.device)
    factors[1:].fill_(gamma * lam)
    _rows[(rows,)](
        rewards, values, mask, last, factors, result, width,
        ADVANTAGES=advantages, HOLES_ARE_STEPS=masked == "zero", WIDE=wide, TILE=tile,
    )  # fmt: skip
    return result
