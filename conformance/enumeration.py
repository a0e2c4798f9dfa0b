"""Small distributions with exactly known probabilities, and what an operation is called with on all outcomes.

A policy is tabular: a row of tokens holds every token of its vocabulary once. Probabilities are fractions;
a backend gets their logarithms, rounded to its dtype, and what that costs is part of its permitted interval.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any
from zlib import crc32

import numpy as np
from flint import arb, fmpq

from conformance.answers import Answer, answers, hold
from conformance.backend import Limited
from conformance.cases import Case
from conformance.operations import OPERATIONS
from conformance.oracle import permitted, permitted_gradients
from conformance.protocol import REQUIRED
from conformance.reproduction import Call
from conformance.run import EXAMPLES, Run
from reference.numbers.formats import FORMATS

LARGEST_SHARE = 60
"""Probabilities are such integers, over their sum: every dtype has them and their small multiples."""


@dataclass(frozen=True)
class Policies:
    """Three policies over one small vocabulary, in shares, and what each token is worth."""

    policy: tuple[int, ...]
    ref: tuple[int, ...]
    behaviour: tuple[int, ...]
    worth: tuple[int, ...]


EXAMPLE_POLICIES = (
    Policies((1, 3), (1, 1), (3, 5), (1, -2)),
    Policies((1, 1), (1, 1), (1, 1), (1, 0)),
    Policies((1, 4, 3), (5, 1, 2), (1, 1, 1), (0, 1, 4)),
    Policies((1, 59), (1, 1), (1, 1), (4, 1)),
)


def drawn(run: Run) -> Iterator[Policies]:
    """The examples, and as many others as the profile asks for; each is expected to be judged."""
    rng = np.random.default_rng(crc32(f"{run.seed} {run.test}".encode()))
    count = EXAMPLES[run.profile]
    run.tally.expected += count
    for k in range(count):
        if k < len(EXAMPLE_POLICIES):
            yield EXAMPLE_POLICIES[k]
            continue
        tokens = int(rng.integers(2, 4))
        shares = rng.integers(1, LARGEST_SHARE, (3, tokens))
        yield Policies(*(tuple(map(int, x)) for x in (*shares, rng.integers(-2, 5, tokens))))


def probabilities(shares: Sequence[int]) -> list[Fraction]:
    """The shares over their sum."""
    return [Fraction(share, sum(shares)) for share in shares]


def logs(run: Run, shares: Sequence[int]) -> np.ndarray:
    """Log-probabilities in the run's dtype, one row of tokens; near 0 too they are rounded but once."""
    return rounded(run, [exactly(p).log() for p in probabilities(shares)])[None]


def rounded(run: Run, numbers: Sequence[arb]) -> np.ndarray:
    """Exact numbers in the run's dtype."""
    return FORMATS[run.dtype].round(np.array([float(x.mid()) for x in numbers]))


def log_ratio(policy: Sequence[int], other: Sequence[int]) -> list[arb]:
    """The exact log-ratio of each token."""
    pairs = zip(probabilities(policy), probabilities(other), strict=True)
    return [exactly(p / q).log() for p, q in pairs]


def exactly(x: Fraction | int) -> arb:
    """A rational as a ball without a radius to speak of."""
    x = Fraction(x)
    return arb(fmpq(x.numerator, x.denominator))


def in_logits(shares: Sequence[int], weights: Sequence[Any]) -> list[Any]:
    """Σ_a weight_a ∂ log π(a) / ∂z_j for every logit j of a tabular policy."""
    total = sum(weights[1:], weights[0])
    return [w + total * -p for p, w in zip(probabilities(shares), weights, strict=True)]


def divergence_gradient(policy: Sequence[int], ref: Sequence[int]) -> list[arb]:
    """∇KL(π‖π_ref) in the logits: π(j) (ℓ_j - KL), with its sum written out."""
    terms = zip(probabilities(policy), log_ratio(policy, ref), strict=True)
    return exact_in_logits(policy, [exactly(p) * x for p, x in terms])


def exact_in_logits(shares: Sequence[int], weights: Sequence[arb]) -> list[arb]:
    """As :func:`in_logits`, of exact numbers."""
    total = sum(weights, arb(0))
    return [w - exactly(p) * total for p, w in zip(probabilities(shares), weights, strict=True)]


def call(run: Run, operation: str, arguments: dict[str, np.ndarray], **options: Any) -> Case:
    """A call of an operation with its default options, but for those given; Limited where it lacks one."""
    if operation not in run.backend.provided:
        raise Limited(f"{operation} is not provided")
    limits, chosen = run.backend.limits(operation), dict(options)
    for name, default in OPERATIONS[operation].options.items():
        if name in options and options[name] not in limits.get(name, (options[name],)):
            raise Limited(f"{name} is never {options[name]!r}")
        if default is not REQUIRED:
            chosen.setdefault(name, limits.get(name, (default,))[0])
    return Case(operation, arguments, chosen, run.dtype, "every outcome")


def results(run: Run, case: Case) -> list[Answer]:
    """The elements of the result of a call."""
    return list(answers(run.call(case), permitted(case)).flat)


def slopes(run: Run, case: Case, name: str, upstream: np.ndarray) -> list[Answer]:
    """The elements of the gradient in one argument."""
    got = run.gradients(case, [name], upstream)[name]
    return list(answers(got, permitted_gradients(case, upstream)[name]).flat)


def read_as(call: Call, formula: Callable[[list[Answer]], Any], count: int) -> Call:
    """The call with what a formula makes of its answer, of so many elements, in which it is linear."""
    units = [[Answer.of(int(j == k)) for j in range(count)] for k in range(count)]
    made = [np.ravel(np.array(formula(unit), dtype=object)) for unit in units]
    weights = [[float(x.got) for x in column] for column in np.transpose(made)]
    return replace(call, read=f"(np.array({weights}) @ np.ravel({{answer}}.tolist()))")


def expect(run: Run, call: Call, means: dict[str, tuple[Answer, arb]], *story: str) -> None:
    """Demand that means over all outcomes are permitted; the exact ones always are, or the suite is wrong.

    `call` is what is shown of the calls that they are made of.
    """
    for name, (answer, truth) in means.items():
        assert answer.allows(truth), f"{name}: {truth} is not in {answer.interval}"
        hold(run, call, {name: answer}, f"exact      {truth.str(12, radius=False)}", *story)
