"""What a failure says of its answer: got and permitted, the nearest variant."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from conformance.cases import Case
from conformance.conventions import hypotheses
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, judged, permitted, permitted_by, permitted_gradients
from conformance.values import consistent, option_values
from reference.numbers.formats import FORMATS

MAX_NOTES = 2
"""Known variants that a message names, at most."""


def mismatch(
    case: Case,
    got: np.ndarray,
    allowed: Permitted,
    worst: tuple[int, ...],
    gradient: str = "",
    upstream: np.ndarray | None = None,
) -> list[str]:
    """Describe the element that is farthest from its permitted interval."""
    low, high = allowed.bounds(worst)
    distance = allowed.distance(worst, float(got[worst]))
    outside = [i for i in judged(case, got) if allowed.distance(i, float(got[i])) > 1.0]
    expected = f"exactly {low!r}" if low == high else f"between {low!r} and {high!r}"
    how_far = "" if low == high else f" ({distance:.3g} half widths from its middle)"
    place = f"[{', '.join(map(str, worst))}]" if worst else ""
    what = f"gradient in {gradient}" if gradient else "result"
    lines = [
        f"got        {what}{place} = {float(got[worst])!r}",
        f"permitted  {expected}{how_far}",
        f"outside    {len(outside)} of {len(judged(case, got))} judged elements",
    ]
    found = islice(explanations(case, got, allowed, gradient, upstream), MAX_NOTES)
    notes = [f"note       this is what {label} gives" for label in found]
    return lines + (notes or _narrower(case.dtype, float(got[worst]), (low + high) / 2))


def _narrower(dtype: str, got: float, middle: float) -> list[str]:
    """Say so where an error in float64 is as large as those of float32 are."""
    roundoff = FORMATS["float32"].unit_roundoff
    if dtype == "float64" and roundoff / 64 < abs(got - middle) / max(abs(middle), 1e-300) < 64 * roundoff:
        return ["note       as far off as float32 would be: a constant of it, or an integer by an integer?"]
    return []


def explanations(
    case: Case, got: np.ndarray, allowed: Permitted, gradient: str = "", upstream: np.ndarray | None = None
) -> Iterator[str]:
    """Name the known variants that give what was got, and that the operation itself cannot be taken for."""
    elements = judged(case, got)
    if not np.isfinite([got[i] for i in elements]).all():
        return
    told = set()
    for label, there in readings(case, gradient, upstream):
        words = label.replace("'", "").lower()
        fits = words not in told and all(there.distance(i, float(got[i])) <= 1.0 for i in elements)
        if fits and any(there.excludes(allowed, i) for i in elements):
            told.add(words)
            yield label


def readings(
    case: Case, gradient: str = "", upstream: np.ndarray | None = None
) -> Iterator[tuple[str, Permitted]]:
    """Other readings of the same call, each with what it permits: of its result, or of a gradient."""
    case = case.with_defaults()
    for label, variant in variants(case):
        if not gradient:
            yield label, permitted(variant)
        elif upstream is not None:
            yield label, permitted_gradients(variant, upstream)[gradient]
    for hypothesis in hypotheses(case.operation):
        first = OPERATIONS[case.operation].differentiable[:1]
        if not gradient:
            yield hypothesis.label, permitted_by(case, hypothesis.formula)
        elif hypothesis.gradient is not None and upstream is not None and (gradient,) == first:
            yield hypothesis.label, permitted_by(case, hypothesis.gradient, upstream)


def variants(case: Case) -> Iterator[tuple[str, Case]]:
    """The same call with another bootstrap, other values, another mask, an option at another value."""
    zeroed = {"bootstrap_value": "a bootstrap value of 0", "values": "values of 0"}
    for name, label in zeroed.items():
        if name in case.arguments and case.arguments[name].any():
            yield (
                f"{case.operation} with {label}",
                case.with_arguments(**{name: np.zeros_like(case.arguments[name])}),
            )
    if "mask" in case.arguments and not case.arguments["mask"].all():
        yield (
            f"{case.operation} without the mask",
            case.with_arguments(mask=np.ones_like(case.arguments["mask"])),
        )
    if case.arguments:  # what has none has its numbers among its options
        yield from _other_options(case)


def _other_options(case: Case) -> Iterator[tuple[str, Case]]:
    """The same call with an option at another value; another algorithm, which says least, comes last."""
    for name in sorted(case.options, key=lambda name: name == "algorithm"):
        for other in option_values(case.operation, name):
            changed = case.with_options(**{name: other})
            possible = consistent(case.operation, changed.options, case.arguments)
            if other != case.options[name] and changed.options == possible:
                yield f"{case.operation} with {name}={other!r}", changed
