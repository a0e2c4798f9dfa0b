"""λ-returns on a GPU: a program goes through some rows from right to left in tiles, one pass over memory.

A tile is a scan over affine maps. What comes from the right of a token is the value v and the return g of the
next time step. A token that is one turns them into its own value V and return r + γ((1-λ) v + λ g), any other
leaves them alone: v' = a v + b, g' = c v + d g + e. Maps compose, so a scan finds every token's own.

Short rows share a tile. Few long ones would leave most of a GPU idle: they are cut into segments, in two
launches. The first finds the map of each segment as a whole, the second begins each with what those to its
right make of the end.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from torch_impl.precision import widest_dtype

BYTES, COLUMNS = 4096, 1024
"""Of what is computed for a tile, a number a token, and the columns that its tokens are of, at most."""

PROGRAMS = 8
"""Programs for each multiprocessor that segments are cut for."""


@triton.jit
def _compose(a1, b1, c1, d1, e1, a2, b2, c2, d2, e2):
    """The second map after the first, which is that of the tokens to the right."""
    return a2 * a1, a2 * b1 + b2, c2 * a1 + d2 * c1, d2 * d1, c2 * b1 + d2 * e1 + e2


@triton.jit
def _apply(a, b, c, d, e, v, g):
    """The value and the return that a map makes of others: a v + b, but not 0 · ∞, and c v + d g + e."""
    return tl.where(a != 0.0, v, b), c * v + d * g + e


@triton.jit
def _leftmost(x):
    """The first column of a tile, as one."""
    return tl.sum(tl.where(tl.arange(0, x.shape[1])[None, :] == 0, x, 0.0), axis=1, keep_dims=True)


@triton.jit
def _scanned(
    rewards, values, mask, ends, factors, row, at, there, width, VALUES: tl.constexpr, WIDE: tl.constexpr
):
    """Which places of a tile are active, their values, and what all from the right up to each make together.

    Time steps are the active places, and all others up to a row's end, with reward and value 0.
    """
    of_value, of_return = tl.load(factors), tl.load(factors + 1)
    place = row * width + at
    active = tl.load(mask + place, mask=there & (at < width), other=0) != 0
    r = tl.where(active, tl.load(rewards + place, mask=active, other=0.0).to(WIDE), 0.0)
    own = tl.zeros_like(r)
    if VALUES:
        own = tl.where(active, tl.load(values + place, mask=active, other=0.0).to(WIDE), 0.0)
    here = (active | (at <= tl.load(ends + row, mask=there, other=-1))).to(WIDE)
    passes = 1.0 - here
    a, b, c, d, e = tl.associative_scan(
        (passes, here * own, here * of_value, passes + here * of_return, here * r),
        1, _compose, reverse=True,
    )  # fmt: skip
    return active, own, a, b, c, d, e


@triton.jit
def _behind(maps, segment, segments, there, v, g, SEGMENTS: tl.constexpr):
    """What the segments to the right of one make of v and g; SEGMENTS is a power of two, not below theirs."""
    others = tl.arange(0, SEGMENTS)[None, :]
    right = there & (others > segment) & (others < segments)
    place = maps + others * 5
    a, b, c, d, e = tl.associative_scan(
        (
            tl.load(place, mask=right, other=1.0), tl.load(place + 1, mask=right, other=0.0),
            tl.load(place + 2, mask=right, other=0.0), tl.load(place + 3, mask=right, other=1.0),
            tl.load(place + 4, mask=right, other=0.0),
        ),
        1, _compose, reverse=True,
    )  # fmt: skip
    return _apply(_leftmost(a), _leftmost(b), _leftmost(c), _leftmost(d), _leftmost(e), v, g)


@triton.jit
def _maps(
    rewards, values, mask, ends, factors, maps, rows, width, span,
    VALUES: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The five numbers of the map of one segment, so many tiles, of each of some rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < rows
    segment, segments = tl.program_id(1), tl.num_programs(1)
    first = segment * span
    one, zero = tl.full((ROWS, 1), 1.0, WIDE), tl.full((ROWS, 1), 0.0, WIDE)
    a, b, c, d, e = one, zero, zero, one, zero
    for tile in range(min(first + span, tl.cdiv(width, TILE)) - 1, first - 1, -1):
        at = tile * TILE + tl.arange(0, TILE)[None, :]
        _, _, a2, b2, c2, d2, e2 = _scanned(
            rewards, values, mask, ends, factors, row, at, there, width, VALUES, WIDE
        )
        a, b, c, d, e = _compose(
            a, b, c, d, e, _leftmost(a2), _leftmost(b2), _leftmost(c2), _leftmost(d2), _leftmost(e2)
        )
    place = maps + (row * segments + segment) * 5
    tl.store(place, a, mask=there)
    tl.store(place + 1, b, mask=there)
    tl.store(place + 2, c, mask=there)
    tl.store(place + 3, d, mask=there)
    tl.store(place + 4, e, mask=there)


@triton.jit
def _rows(
    rewards, values, mask, ends, factors, maps, last, result, rows, width, span,
    ADVANTAGES: tl.constexpr, SEGMENTS: tl.constexpr,
    VALUES: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Returns of one segment of each of some rows, or advantages; 0 where the mask does not hold."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < rows
    segment, segments = tl.program_id(1), tl.num_programs(1)
    first = segment * span
    v = tl.load(last + row, mask=there, other=0.0).to(WIDE)
    g = v
    if SEGMENTS > 1:
        v, g = _behind(maps + row * segments * 5, segment, segments, there, v, g, SEGMENTS)
    for tile in range(min(first + span, tl.cdiv(width, TILE)) - 1, first - 1, -1):
        at = tile * TILE + tl.arange(0, TILE)[None, :]
        active, own, a, b, c, d, e = _scanned(
            rewards, values, mask, ends, factors, row, at, there, width, VALUES, WIDE
        )
        _, returns = _apply(a, b, c, d, e, v, g)
        found = returns - own if ADVANTAGES else returns
        written = tl.where(active, found, 0.0).to(result.dtype.element_ty)
        tl.store(result + row * width + at, written, mask=there & (at < width))
        v, g = tl.where(_leftmost(a) != 0.0, v, _leftmost(b)), _leftmost(returns)


def lambda_returns(
    rewards: Tensor,
    values: Tensor | None,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str,
    advantages: bool,
) -> Tensor:
    """Returns, or these less the values, as :func:`torch_impl.gae.lambda_returns`; arguments were checked.

    Without values these are 0.
    """
    has_values = values is not None
    given = rewards, rewards if values is None else values, mask, bootstrap_value
    rewards, values, mask, last = (x.contiguous() for x in given)
    result = torch.empty_like(rewards)
    rows, width = rewards.shape
    if result.numel() == 0:
        return result
    dtype = widest_dtype(rewards, values, last)
    # As an array, because a number that is passed to a kernel is made float32.
    factors = torch.full((2,), gamma * (1 - lam), dtype=dtype, device=rewards.device)
    factors[1:].fill_(gamma * lam)
    ends = _ends(mask) if masked == "zero" else mask.new_full((rows,), -1, dtype=torch.int32)
    tokens = BYTES // dtype.itemsize
    tile = min(COLUMNS, tokens, triton.next_power_of_2(width))
    together = min(tokens // tile, triton.next_power_of_2(rows))
    programs, tiles = triton.cdiv(rows, together), triton.cdiv(width, tile)
    span = triton.cdiv(tiles, segments(programs, tiles, _multiprocessors(rewards.device)))
    grid = programs, triton.cdiv(tiles, span)
    maps = torch.empty(rows, grid[1], 5, dtype=dtype, device=rewards.device)
    arrays = rewards, values, mask, ends, factors, maps
    tiling = {
        "VALUES": has_values,
        "WIDE": tl.float64 if dtype == torch.float64 else tl.float32,
        "ROWS": together,
        "TILE": tile,
    }
    if grid[1] > 1:
        _maps[grid](*arrays, rows, width, span, **tiling)
    _rows[grid](
        *arrays, last, result, rows, width, span,
        ADVANTAGES=advantages, SEGMENTS=triton.next_power_of_2(grid[1]), **tiling,
    )  # fmt: skip
    return result


def discounted_returns(rewards: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float) -> Tensor:
    """Returns as :func:`torch_impl.gae.discounted_returns`; arguments were checked, there is no gradient."""
    options: Any = {"gamma": gamma, "lam": 1.0, "masked": "skip", "advantages": False}
    return lambda_returns(rewards, None, mask, bootstrap_value, **options)


def segments(programs: int, tiles: int, multiprocessors: int) -> int:
    """Into how many segments rows of so many tiles are cut that take so many programs whole."""
    return max(1, min(tiles, PROGRAMS * multiprocessors // programs))


def _ends(mask: Tensor) -> Tensor:
    """The last active place of each row; where a row has none, any place."""
    return (mask.shape[1] - 1 - mask.view(torch.int8).flip(1).argmax(dim=1)).int()


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
