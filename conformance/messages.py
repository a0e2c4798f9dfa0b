"""What a failure says of its answer: got and permitted, the nearest variant."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.oracle import Permitted, judged, permitted
from conformance.values import option_values


def mismatch(
    case: Case, got: np.ndarray, allowed: Permitted, worst: tuple[int, ...], gradient: str = ""
) -> list[str]:
    """Describe the element that is farthest from its permitted interval."""
    low, high = allowed.bounds(worst)
    distance = allowed.distance(worst, float(got[worst]))
    outside = [i for i in judged(case, got) if allowed.distance(i, float(got[i])) > 1.0]
    expected = f"exactly {low!r}" if low == high else f"between {low!r} and {high!r}"
    how_far = "" if low == high else f" ({distance:.3g} half widths from its middle)"
    place = ", ".join(map(str, worst))
    what = f"gradient in {gradient}" if gradient else "result"
    lines = [
        f"got        {what}[{place}] = {float(got[worst])!r}",
        f"permitted  {expected}{how_far}",
        f"outside    {len(outside)} of {len(judged(case, got))} judged elements",
    ]
    notes = [] if gradient else explanations(case, got)
    return lines + [f"note       {text}" for text in notes]


def explanations(case: Case, got: np.ndarray) -> list[str]:
    """Name the known variants that give exactly what was got, where the operation itself does not."""
    found = [label for label, variant in variants(case) if _agrees(variant, case, got)]
    return [f"this is what {label} gives" for label in found[:2]]


def variants(case: Case) -> Iterator[tuple[str, Case]]:
    """Other readings of the same call: each option at another value, another bootstrap, another mask."""
    for name, value in case.options.items():
        for other in option_values(case.operation, name):
            if other != value:
                yield f"{case.operation} with {name}={other!r}", case.with_options(**{name: other})
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


def _agrees(variant: Case, case: Case, got: np.ndarray) -> bool:
    """Whether a result lies in the permitted set of another call, at the positions of this one."""
    if not np.isfinite([got[i] for i in judged(case, got)]).all():
        return False
    allowed = permitted(variant)
    return all(allowed.distance(i, float(got[i])) <= 1.0 for i in judged(case, got))
