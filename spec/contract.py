"""Derivations of the chapter `contract`: what holds of every operation, shown on the reference."""

import itertools
from typing import Any

import numpy as np

from reference.numbers import symbols
from spec.proofs import agree, derivation
from spec.symbolic import OPERATIONS, ZEROING, Rows

EVERY = {**OPERATIONS, **{f"{name}, zero": operation for name, operation in ZEROING.items()}}
"""Every operation that takes a mask, in both readings of it."""


def _batches(rows: int, length: int) -> list[Rows]:
    """A batch of symbols under every mask of its shape."""
    shape = (rows, length)
    rewards, values, bootstrap = (symbols.array(*x) for x in (("r", shape), ("V", shape), ("b", (rows,))))
    masks = itertools.product((False, True), repeat=rows * length)
    return [Rows(rewards, values, np.array(mask).reshape(shape), bootstrap) for mask in masks]


@derivation("contract.padding", status="verified for T <= 3")
def padding_changes_nothing() -> None:
    """One and two masked columns, left and right of every masked row: the active results stay."""
    for length, left, right in itertools.product((1, 2, 3), (0, 1, 2), (0, 1, 2)):
        for batch in _batches(1, length):
            width = ((0, 0), (left, right))
            rewards, values, mask = (np.pad(x, width, constant_values=fill) for x, fill in _columns(batch))
            padded = Rows(rewards, values, mask, batch.bootstrap_value)
            for operation in EVERY.values():
                agree(operation(padded)[padded.mask], operation(batch)[batch.mask])


def _columns(batch: Rows) -> list[tuple[Any, Any]]:
    """The arrays with columns, each with what fills the new ones: symbols that nobody else holds."""
    garbage = symbols.array("garbage", (2,))
    return [(batch.rewards, garbage[0]), (batch.values, garbage[1]), (batch.mask, False)]


@derivation("contract.permutation", status="verified for B <= 3")
def permutation_permutes() -> None:
    """Every order of up to three rows of two positions, under every mask."""
    for rows in (2, 3):
        for batch, order in itertools.product(_batches(rows, 2), itertools.permutations(range(rows))):
            permuted = Rows(*(x[list(order)] for x in batch))
            for operation in EVERY.values():
                agree(operation(permuted), operation(batch)[list(order)])
