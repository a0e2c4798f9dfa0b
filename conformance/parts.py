"""Parts of a batch: some of its rows, at its width, and what the mean over a part divides by."""

import numpy as np

from conformance.cases import Case


def rows_of(case: Case) -> int:
    """Count the rows of a call, or its samples."""
    return len(next(iter(case.arguments.values())))


def part(case: Case, rows: np.ndarray) -> Case:
    """The call with some of the rows, in this order, their ids among them."""
    chosen = {name: None if x is None else x[rows] for name, x in case.arguments.items()}
    return case.with_arguments(**chosen)


def parts(rows: int) -> list[np.ndarray]:
    """Cut the rows into up to three parts of different size."""
    pieces = np.split(np.arange(rows), [1, (rows + 1) // 2])
    return [piece for piece in pieces if len(piece)]


def with_a_part_without_tokens(case: Case) -> Case:
    """Mask the first row, which is a part of its own, where others are left."""
    if "mask" not in case.arguments or rows_of(case) == 1:
        return case
    mask = case.arguments["mask"].copy()
    mask[0] = False
    return case.with_arguments(mask=mask)


def denominator(case: Case) -> int:
    """What the mean of a call divides by: tokens, rows, or pairs; a horizon is the same for all parts."""
    mask = case.arguments.get("mask")
    if mask is None:
        return rows_of(case)
    mode = case.options.get("aggregation", case.options.get("mode", "token-mean"))
    if mode == "token-mean":
        return int(mask.sum())
    return int(mask.any(axis=1).sum()) if case.options.get("empty_rows") == "drop" else len(mask)
