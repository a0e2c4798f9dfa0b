"""What a failure says of its answer: got and permitted, the nearest variant."""

from collections.abc import Iterator
from itertools import chain, islice

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
    how_far = "" if low == high else away(distance)
    lines = [
        f"got        {element(worst, gradient)} = {float(got[worst])!r}",
        f"permitted  {expected}{how_far}",
        f"outside    {len(outside)} of {len(judged(case, got))} judged elements",
    ]
    found = islice(explanations(case, got, allowed, gradient, upstream), MAX_NOTES)
    notes = [f"note       this is what {label} gives" for label in found]
    if gradient and not any(got[i] for i in judged(case, got)):
        notes = ["note       no gradient arrives at all: is something detached?", *notes[: MAX_NOTES - 1]]
    return lines + (notes or _narrower(case.dtype, float(got[worst]), (low + high) / 2))


def element(index: tuple[int, ...], gradient: str = "") -> str:
    """The name of one element of a result, or of the gradient in an argument."""
    place = f"[{', '.join(map(str, index))}]" if index else ""
    return f"gradient in {gradient}{place}" if gradient else f"result{place}"


def away(distance: float) -> str:
    """How far a finite answer is from the middle of its interval; NaN and the infinities are nowhere near."""
    return f" ({distance:.3g} half widths from its middle)" if np.isfinite(distance) else ""


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
    for label, variant in chain(other_inputs(case), other_options(case)):
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


def other_inputs(case: Case) -> Iterator[tuple[str, Case]]:
    """The same call with another bootstrap, other values, another mask, its clip bounds exchanged."""
    zeroed = {"bootstrap_value": "bootstrapping from 0", "values": "values of 0"}
    for name, label in zeroed.items():
        if name in case.arguments and case.arguments[name].any():
            nothing = np.zeros_like(case.arguments[name])
            yield f"{case.operation} with {label}", case.with_arguments(**{name: nothing})
    has_a_say = "masked" in case.options  # an option that says the same of the mask
    if "mask" in case.arguments and not case.arguments["mask"].all() and not has_a_say:
        everything = np.ones_like(case.arguments["mask"])
        yield f"{case.operation} with the mask ignored", case.with_arguments(mask=everything)
    if "clip_high" in case.options:
        low, high = case.options["clip_low"], case.options["clip_high"]
        exchanged = case.with_options(clip_low=high, clip_high=low)
        yield f"{case.operation} with clip_low and clip_high exchanged", exchanged


def other_options(case: Case) -> Iterator[tuple[str, Case]]:
    """The same call with an option at another value; another algorithm, which says least, comes last.

    What has no arguments has its numbers among its options: another of those is another call.
    """
    if not case.arguments:
        return
    for name in sorted(case.options, key=lambda name: name == "algorithm"):
        for other in option_values(case.operation, name):
            changed = case.with_options(**{name: other})
            possible = consistent(case.operation, changed.options, case.arguments)
            if other != case.options[name] and changed.options == possible:
                yield f"{case.operation} with {name}={other!r}", changed
