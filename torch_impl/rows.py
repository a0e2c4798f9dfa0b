"""Rows of time steps: masked positions taken out and put back, and the sums that run from right to left.

A row's active tokens are its time steps, wherever the mask has holes. Closing a row moves them next to each
other, in their order, and puts 0 behind them: what follows a time step is then the next column. Where each
row's tokens lie side by side already, as padding on one side leaves them, they stay where they are.

On the CPU the mask is read to find that out. On other devices, and while compiling, reading would wait: rows
are always closed there. It is the same formula either way, and only roundings differ.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_impl.precision import plain, select, without_autocast

BLOCK = 32
"""Columns that are summed by one matrix product."""

CHUNK = 2**18
"""Tokens of the rows that the CPU does together: few enough that what they leave is used again."""


def chunks(*arrays: Tensor) -> list[slice]:
    """Slices of the rows of arrays, the first of them (B, T), that the CPU does together; elsewhere one."""
    count, width = arrays[0].shape
    step = max(1, CHUNK // max(1, width)) if all(map(plain, arrays)) else max(1, count)
    return [slice(start, start + step) for start in range(0, max(1, count), step)]


def in_chunks(compute: Callable[..., Tensor], *arrays: Tensor) -> Tensor:
    """What a function makes of the rows of arrays, (B, T) from arrays of B rows, a chunk at a time."""
    first, *others = chunks(*arrays)
    if not others:
        return compute(*arrays)
    found = compute(*(x[first] for x in arrays))
    result = found.new_empty(arrays[0].shape)
    result[first] = found
    for rows in others:
        result[rows] = compute(*(x[rows] for x in arrays))
    return result


class Rows:
    """The time steps of a batch under a mask of shape (B, T)."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.whole, self.side_by_side = _layout(mask)
        if self.whole:
            return
        if self.side_by_side:
            integers = mask.view(torch.int8)
            self.stop = integers.sum(dim=1)
            if not bool(mask[:, 0].all()):
                self.stop += integers.argmax(dim=1)
        else:
            counts = mask.cumsum(dim=1)
            self.place = counts * mask  # column 0 is for what is no time step
            self.stop = mask.sum(dim=1) + 1

    def close(self, x: Tensor, behind: Tensor | None = None) -> Tensor:
        """The numbers of the time steps, side by side, and 0 elsewhere, whatever lies under the mask.

        `behind`, shape (B,) and of the dtype of x, comes right behind each row's last time step; there is a
        column more then.
        """
        if self.whole:
            return x if behind is None else torch.cat([x, behind[:, None]], dim=1)
        more = 0 if behind is None else 1
        if self.side_by_side:
            closed = pad(select(self.mask, x), (0, more)) if more else select(self.mask, x)
        else:
            closed = x.new_zeros(len(x), x.shape[1] + 1 + more).scatter(1, self.place, x)
            closed[:, 0] = 0.0
        return closed if behind is None else self.put_behind(closed, behind)

    def put_behind(self, closed: Tensor, behind: Tensor) -> Tensor:
        """Write a number behind each row's last time step, in place."""
        if self.whole:
            closed[:, -1] = behind
            return closed
        return closed.scatter_(1, self.stop[:, None], behind[:, None])

    def open(self, x: Tensor) -> Tensor:
        """What stands side by side, at the places of the time steps; 0 elsewhere."""
        if self.whole:
            return x
        return select(self.mask, x if self.side_by_side else x.gather(1, self.place))


def discounted_sums(x: Tensor, discount: float) -> Tensor:
    """S_t = x_t + discount · S_{t+1} along each row, from 0 behind its last column.

    A block of columns is one product with a triangular matrix of powers. What the next block begins with is
    added to a block's last column before: those sums are S of every BLOCK-th column, found in the same way.
    """
    width = x.shape[1]
    if width == 0:
        return x
    block = min(width, BLOCK)
    matrix = (
        _kept_powers(discount, block, x.dtype) if plain(x) else _powers(discount, block, x.dtype, x.device)
    )
    with without_autocast(x.device.type):
        if width <= block:
            return x @ matrix
        blocks = pad(x, (-width % block, 0)).reshape(len(x), -1, block)
        heads = discounted_sums(blocks @ matrix[:, 0], discount**block)
        onward = pad(discount * heads[:, 1:], (0, 1))[..., None]
        blocks[..., -1:] += onward  # padding made them new
        return (blocks @ matrix).flatten(1)[:, -width:]


def _powers(discount: float, block: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A square matrix whose entry (i, j) is the discount to the power of i - j; 0 above its diagonal."""
    exponents = torch.arange(1 - block, block, dtype=torch.float64, device=device)
    powers = select(exponents >= 0, torch.pow(discount, exponents.clamp(min=0))).to(dtype)
    return powers.unfold(0, block, 1).flip(1)


@lru_cache(maxsize=64)
def _kept_powers(discount: float, block: int, dtype: torch.dtype) -> Tensor:
    """As :func:`_powers`, on the CPU, where making them would take longer than summing a few rows."""
    with torch.inference_mode(False):
        return _powers(discount, block, dtype, torch.device("cpu"))


def _layout(mask: Tensor) -> tuple[bool, bool]:
    """Whether every position is known to be active, and whether each row's tokens lie side by side."""
    if not plain(mask) or mask.numel() == 0:
        return False, False
    integers = mask.view(torch.int8)
    if bool(integers.amin()):
        return True, True
    begins = (mask[:, 1:] > mask[:, :-1]).view(torch.int8).sum(dim=1) + integers[:, 0]
    return False, bool((begins <= 1).all())
