"""Rows of time steps: masked positions taken out and put back, and the sums that run from right to left.

A row's active tokens are its time steps, wherever the mask has holes. Closing a row moves them next to each
other, in their order, and puts 0 behind them: what follows a time step is then the next column. Where each
row's tokens lie side by side already, as padding on one side leaves them, they stay where they are.

On the CPU the mask is read to find that out. On other devices, and while compiling, reading would wait: rows
are always closed there. It is the same formula either way, and only roundings differ.
"""

from collections.abc import Callable

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
    found = compute(*(x[first] for x in arrays))
    if not others:
        return found
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
        self.steps, self.place = mask, mask
        if not self.side_by_side:
            counts = mask.cumsum(dim=1)
            self.steps = torch.arange(mask.shape[1], device=mask.device) < counts[:, -1:]
            self.place = torch.where(mask, counts - 1, mask.shape[1])

    def close(self, x: Tensor) -> Tensor:
        """The numbers of the time steps, side by side; 0 elsewhere, whatever lies under the mask."""
        if self.whole:
            return x
        if self.side_by_side:
            return select(self.mask, x)
        width = self.mask.shape[1]
        return x.new_zeros(len(x), width + 1).scatter(1, self.place, x)[:, :width]

    def open(self, x: Tensor) -> Tensor:
        """What stands side by side, at the places of the time steps; 0 elsewhere."""
        if self.whole:
            return x
        if self.side_by_side:
            return select(self.mask, x)
        return select(self.mask, x.gather(1, self.place.clamp(max=self.mask.shape[1] - 1)))

    def following(self, x: Tensor, last: Tensor) -> Tensor:
        """For each time step the number at the next one of its row; `last`, shape (B,), behind the end.

        0 where no time step is.
        """
        if self.whole:
            return torch.cat([x[:, 1:], last[:, None]], dim=1)
        goes_on = pad(self.steps[:, 1:], (0, 1))
        return select(goes_on, pad(x[:, 1:], (0, 1))) + self.at_end(last)

    def plus_at_end(self, x: Tensor, last: Tensor) -> Tensor:
        """x, and `last`, shape (B,), added to it at the last time step of each row."""
        if self.whole:
            return torch.cat([x[:, :-1], x[:, -1:] + last[:, None]], dim=1)
        return x + self.at_end(last)

    def at_end(self, x: Tensor) -> Tensor:
        """The number of each row, shape (B,), at its last time step; 0 elsewhere."""
        ends = self.steps & ~pad(self.steps[:, 1:], (0, 1))
        return select(ends, x[:, None])


def discounted_sums(x: Tensor, discount: float) -> Tensor:
    """S_t = x_t + discount · S_{t+1} along each row, from 0 behind its last column.

    A block of columns is one product with a triangular matrix of powers. What the next block begins with is
    added to a block's last column before: those sums are S of every BLOCK-th column, found in the same way.
    """
    width = x.shape[1]
    if width == 0:
        return x
    block = min(width, BLOCK)
    powers = x.new_full((block,), discount, dtype=torch.float64)
    powers = torch.cat([torch.ones_like(powers[:1]), powers[1:]]).cumprod(dim=0).to(x.dtype)
    distance = torch.arange(block, device=x.device)[:, None] - torch.arange(block, device=x.device)
    matrix = select(distance >= 0, powers[distance.clamp(min=0)])
    with without_autocast(x.device.type):
        if width <= block:
            return x @ matrix
        blocks = pad(x, (-width % block, 0)).reshape(len(x), -1, block)
        heads = discounted_sums(blocks @ matrix[:, 0], discount**block)
        onward = pad(discount * heads[:, 1:], (0, 1))[..., None]
        blocks[..., -1:] += onward  # padding made them new
        return (blocks @ matrix).flatten(1)[:, -width:]


def _layout(mask: Tensor) -> tuple[bool, bool]:
    """Whether every position is known to be active, and whether each row's tokens lie side by side."""
    if mask.device.type != "cpu" or type(mask) is not Tensor or torch.compiler.is_compiling():
        return False, False
    if bool(mask.all()):
        return True, True
    begins = mask[:, 1:] & ~mask[:, :-1]
    return False, bool((begins.sum(dim=1) + mask[:, :1].sum(dim=1) <= 1).all())
