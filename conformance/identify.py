"""Which conventions a backend follows, told from its answers: the command `rlspec identify`.

A reading of an operation is consistent if every answer lies in the set that the oracle permits to its
formula. Readings are made of choices, one a convention; observations rule them out one after the other, and
what is left is what the backend follows. Nothing that the backend declares is believed.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance import reproduction
from conformance.asking import Answer, Call, Refusal, accepted_options, ask, calls
from conformance.backend import Backend, OutOfService
from conformance.conventions import FAMILIES
from conformance.conventions.family import ASKED, Convention, Family, Hypothesis
from conformance.messages import element
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, computed, judged, permitted, permitted_by
from conformance.traits import Trait, traits
from reference.numbers.formats import FORMATS

_ITS_OWN_DTYPE = re.compile(r"returned dtype (\w+) for inputs of dtype")


@dataclass(frozen=True)
class Miss:
    """An answer that no reading gives, and the reading that comes nearest."""

    answer: Answer
    nearest: Hypothesis


@dataclass(frozen=True)
class Finding:
    """What is known of one convention."""

    convention: Convention
    choices: tuple[str, ...]
    """The choices that no answer rules out: one, unless nothing tells them apart."""
    asked: tuple[Any, ...] = ()
    """The values that were asked and answered, where the convention is an option that can be asked."""
    refused: tuple[Any, ...] = ()
    """The values that were refused."""

    @property
    def text(self) -> str:
        """The finding in words."""
        choices = dict.fromkeys(self._words(choice) for choice in self.choices)
        told = next(iter(choices)) if len(choices) == 1 else f"not told apart: {'; '.join(choices)}"
        refused = f" (refused: {', '.join(map(str, self.refused))})" if self.refused else ""
        return told + refused

    def _words(self, choice: str) -> str:
        if choice == ASKED:
            values = ", ".join(map(str, self.asked))
            return values if len(self.asked) == 1 else f"honoured ({values})"
        return f"{choice}, whatever is asked" if len(self.asked) > 1 else choice


@dataclass
class Identification:
    """What the answers of one operation tell."""

    operation: str
    findings: list[Finding] = field(default_factory=list)
    traits: list[Trait] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    tried: int = 1
    """How many readings were held against the answers."""
    failure: str = ""
    """Why there is nothing to tell, if there is nothing."""

    @property
    def known(self) -> bool:
        """Whether some reading gives all answers but those to special cases."""
        return not self.failure and not any(miss.answer.call.observation.main for miss in self.misses)


def identify(backend: Backend, operation: str, dtype: str) -> Identification:
    """Ask a backend for one operation, and tell the readings that give its answers."""
    family = FAMILIES[operation]
    found = Identification(operation)
    accepted = accepted_options(backend, operation)
    asked = list(calls(family, dtype, accepted, backend.limits(operation)))
    try:
        replies = [ask(backend, call) for call in asked]
        found.traits = traits(backend, asked)
    except OutOfService as error:
        found.failure = str(error)
        return found
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    found.refusals = [reply for reply in replies if isinstance(reply, Refusal)]
    if not any(answer.call.observation.main for answer in answers):
        found.failure = found.refusals[0].reason + _advice(found.refusals[0].reason)
        return found
    left = _narrow(family, answers, accepted, found)
    if found.known:
        found.findings = list(_findings(family, left, replies, accepted))
    return found


def distance(answer: Answer, reading: Hypothesis) -> float:
    """How far an answer is from what a reading permits, in half widths: above 1 the reading is ruled out."""
    return max(_distances(answer, reading).values(), default=0.0)


def _distances(answer: Answer, reading: Hypothesis) -> dict[tuple[int, ...], float]:
    """The distance of each element; infinite where one of the two is NaN and the other is not."""
    call, got, formula = answer.call, answer.got, _formula(answer.call, reading)
    nan, allowed = np.isnan(computed(call.case, formula, *call.upstream)), _permitted(call, reading)
    found = {}
    for place in judged(call.case, got):
        if nan[place] or np.isnan(got[place]):
            found[place] = 0.0 if nan[place] == np.isnan(got[place]) else np.inf
        else:
            found[place] = float(np.nan_to_num(allowed.distance(place, float(got[place])), posinf=np.inf))
    return found


def _advice(reason: str) -> str:
    """What to ask instead, where answers have a dtype of their own whatever goes in."""
    own = _ITS_OWN_DTYPE.search(reason)
    return f"; try --dtype {own[1]}, in which it may answer" if own and own[1] in FORMATS else ""


def _formula(call: Call, reading: Hypothesis) -> Callable[..., Any]:
    formula = reading.gradient if call.upstream else reading.formula
    assert formula is not None
    return formula


def _permitted(call: Call, reading: Hypothesis) -> Permitted:
    if reading.plain and OPERATIONS[call.case.operation].forms:
        return permitted(call.case.with_options(**_held(reading)))
    return permitted_by(call.case, _formula(call, reading), *call.upstream)


def _held(reading: Hypothesis) -> dict[str, Any]:
    """The options that a reading holds."""
    return {name: x for name, x in reading.fixed.items() if reading.family.is_option(name)}


def _narrow(
    family: Family, answers: list[Answer], accepted: frozenset[str], found: Identification
) -> list[Hypothesis]:
    """Rule out readings, one answer after the other; an answer that none gives is set aside."""
    left = [Hypothesis(family, {})]
    for answer in answers:
        sees = answer.call.sees
        longer = [h for one in left for h in family.extended(one, sees, accepted)]
        found.tried += len(longer) - len(left)
        judge = Judge(answer)
        consistent = [reading for reading in longer if judge(reading) <= 1.0]
        if consistent:
            left = consistent
            continue
        found.misses.append(Miss(answer, min(longer, key=judge)))
        if answer.call.observation.main:
            return left
    return [h for one in left for h in family.extended(one, None, accepted)]


class Judge:
    """Holds readings against one answer; readings that give the same numbers are looked at once."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.by_choices: dict[tuple[tuple[str, str], ...], float] = {}
        self.by_numbers: dict[tuple[bytes, bool], float] = {}

    def __call__(self, reading: Hypothesis) -> float:
        """The distance of the answer from what the reading permits."""
        sees = self.answer.call.sees
        choices = {name: x for name, x in reading.choices.items() if sees is None or name in sees}
        key = tuple(choices.items())
        if key not in self.by_choices:
            self.by_choices[key] = self._by_numbers(Hypothesis(reading.family, choices))
        return self.by_choices[key]

    def _by_numbers(self, reading: Hypothesis) -> float:
        call = self.answer.call
        key = computed(call.case, _formula(call, reading), *call.upstream).tobytes(), reading.plain
        if key not in self.by_numbers:
            self.by_numbers[key] = distance(self.answer, reading)
        return self.by_numbers[key]


def _findings(
    family: Family, left: list[Hypothesis], replies: list[Answer | Refusal], accepted: frozenset[str]
) -> Iterator[Finding]:
    for convention in family.conventions:
        choices = tuple(
            dict.fromkeys(h.choices[convention.name] for h in left if convention.name in h.choices)
        )
        if not choices:
            continue
        asked: tuple[Any, ...] = ()
        refused: tuple[Any, ...] = ()
        if convention.name in accepted:
            asked = _values(convention.name, replies, Answer)
            refused = tuple(x for x in _values(convention.name, replies, Refusal) if x not in asked)
        yield Finding(convention, choices, asked, refused)


def _values(option: str, replies: list[Answer | Refusal], kind: type) -> tuple[Any, ...]:
    found = (reply.call.case.options[option] for reply in replies if isinstance(reply, kind))
    return tuple(dict.fromkeys(found))


def missed(miss: Miss, backend: Backend) -> list[str]:
    """The story of an answer that no reading gives: the call, the answer, what the nearest would give."""
    call, got = miss.answer.call, miss.answer.got
    distances = _distances(miss.answer, miss.nearest)
    worst = max(distances, key=lambda place: distances[place])
    low, high = _permitted(call, miss.nearest).bounds(worst)
    leaf = OPERATIONS[call.case.operation].differentiable[0] if call.upstream else ""
    made = reproduction.Call(call.asked, leaf, call.upstream[0] if call.upstream else None)
    return [
        *reproduction.script(made, backend.source),
        f"got      {element(worst, leaf)} = {float(got[worst])!r}",
        f"nearest  {miss.nearest.label}, which gives {low!r} to {high!r}",
    ]
