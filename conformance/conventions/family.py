"""What a convention is, and a hypothesis: a choice for each convention of an operation, and its formula.

A family is one operation with all its readings: a formula that has the arguments and options of the
reference, and one keyword more for each convention that is no option of the protocol. At the defaults of
those keywords it is the reference. It runs on floats and balls, as the reference does.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from conformance.operations import OPERATIONS
from reference import numbers

Formula = Callable[..., Any]

ASKED = "as asked"
"""The choice of following an option, whatever its value."""


@dataclass(frozen=True)
class Convention:
    """One question that libraries answer differently, with the answers that there are."""

    name: str
    """The keyword of the formula: an option of the operation, or a word of the family's own."""
    choices: Mapping[str, Any]
    """What the formula is given, by what is said of it; of a word of the family's own, the clause's first."""
    clause: str
    unless: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values of other conventions with any of which this one says nothing."""
    unless_all: Mapping[str, Any] = field(default_factory=dict)
    """Values of other conventions with all of which it says nothing."""

    def silent(self, chosen: Mapping[str, Any]) -> bool:
        """Whether this convention says nothing where others are chosen so."""
        any_of = any(name in chosen and chosen[name] in values for name, values in self.unless.items())
        all_of = [name in chosen and chosen[name] == value for name, value in self.unless_all.items()]
        return any_of or (bool(all_of) and all(all_of))


def values(*choices: Any) -> dict[str, Any]:
    """Choices that are called what they are."""
    return {f"{choice:g}" if isinstance(choice, float) else str(choice): choice for choice in choices}


@dataclass(frozen=True)
class Observation:
    """One input on which readings differ: it is asked of a backend, and each reading is held against it."""

    name: str
    arguments: dict[str, Any]
    """Arrays in the protocol's order; float64 is rounded to the dtype."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options that are held; the others are plain."""
    vary: tuple[str, ...] | None = ()
    """Options of which every value is asked, one at a time; None stands for all."""
    main: bool = False
    """Whether a reading that misses this misses the operation, and not a special case alone."""
    exact: bool = False
    """Whether its numbers are such that ties are decided."""
    sees: tuple[str, ...] | None = None
    """The conventions that can change an answer; None stands for all."""
    gradient: bool = False
    """Whether the gradient is asked, and not the result."""


@dataclass(frozen=True)
class Family:
    """An operation with its conventions, its general formula, and the observations that tell them apart."""

    operation: str
    conventions: tuple[Convention, ...]
    formula: Formula
    observations: tuple[Observation, ...]
    gradient: Formula | None = None
    """The derivative in the first differentiable argument, upstream first; as `formula` otherwise."""

    def is_option(self, name: str) -> bool:
        """Whether a convention is one of the operation's options."""
        return name in OPERATIONS[self.operation].options

    def extended(
        self, hypothesis: "Hypothesis", names: Collection[str] | None, accepted: Collection[str]
    ) -> list["Hypothesis"]:
        """Every way to choose what a reading leaves open of these conventions (None: of all).

        `accepted` are the options that a backend takes as keywords: only those can be as asked.
        """
        left = [c for c in self.conventions if c.name not in hypothesis.choices]
        return _combine(self, [c for c in left if names is None or c.name in names], hypothesis, accepted)

    def edits(self) -> Iterator["Hypothesis"]:
        """The reference with one convention changed: every choice but the clause's own."""
        own = [c for c in self.conventions if not self.is_option(c.name)]
        firsts = {c.name: next(iter(c.choices.values())) for c in own}
        for convention in self.conventions:
            if convention.silent(firsts):
                continue
            labels = list(convention.choices)
            for label in labels if self.is_option(convention.name) else labels[1:]:
                yield Hypothesis(self, {convention.name: label})


@dataclass(frozen=True)
class Hypothesis:
    """A reading of an operation. What is not chosen is as asked, or as the clause has it."""

    family: Family
    choices: Mapping[str, str]

    @property
    def label(self) -> str:
        """The reading in words."""
        told = [
            f"{name}={x}" if self.family.is_option(name) else x
            for name, x in self.choices.items()
            if x not in (ASKED, None if self.family.is_option(name) else self._firsts[name])
        ]
        how = f"with {', '.join(told)}" if told else "as its clauses have it"
        return f"{self.family.operation} {how}"

    @property
    def clause(self) -> str:
        """The clause that speaks of the first convention chosen."""
        return next(c.clause for c in self.family.conventions if c.name in self.choices)

    @property
    def fixed(self) -> dict[str, Any]:
        """The keywords that this reading gives the formula, whatever is asked."""
        chosen = {c.name: c.choices for c in self.family.conventions}
        return {name: chosen[name][label] for name, label in self.choices.items() if label != ASKED}

    @property
    def plain(self) -> bool:
        """Whether this is the reference, with some options held."""
        return all(self.family.is_option(name) or x == self._firsts[name] for name, x in self.choices.items())

    @property
    def _firsts(self) -> dict[str, str]:
        """The clauses' own choices."""
        return {c.name: next(iter(c.choices)) for c in self.family.conventions}

    @property
    def formula(self) -> Formula:
        """The formula, with the reference's signature."""
        return self._with(self.family.formula)

    @property
    def gradient(self) -> Formula | None:
        """The formula's derivative in the first differentiable argument, upstream first."""
        return None if self.family.gradient is None else self._with(self.family.gradient)

    def _with(self, formula: Formula) -> Formula:
        fixed = self.fixed

        def reading(*arguments: Any, **options: Any) -> Any:
            held = {name: _in_system_of(chain(arguments, options.values()), x) for name, x in fixed.items()}
            with np.errstate(all="ignore"):
                return formula(*arguments, **{**options, **held})

        return reading


def _combine(
    family: Family, left: list[Convention], so_far: Hypothesis, accepted: Collection[str]
) -> list[Hypothesis]:
    if not left:
        return [so_far]
    convention, *rest = left
    asked = [ASKED] if convention.name in accepted else []
    if convention.silent(so_far.fixed):
        return _combine(family, rest, so_far, accepted)
    chosen = [
        Hypothesis(family, {**so_far.choices, convention.name: x}) for x in [*asked, *convention.choices]
    ]
    return [found for one in chosen for found in _combine(family, rest, one, accepted)]


def _in_system_of(operands: Any, value: Any) -> Any:
    """A float as the operands' number system rounds it; anything else as it is."""
    if type(value) is not float:
        return value
    for operand in operands:
        if numbers.system_of(operand) is not numbers.floats:
            return numbers.full((), 1, like=operand)[()] * value
    return value
