"""The observations of an operation as calls of a backend, and what the backend answers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.backend import Backend, BadCall, Limited
from conformance.cases import Case, Limits
from conformance.conventions.family import Family, Observation
from conformance.operations import OPERATIONS
from conformance.protocol import REQUIRED
from conformance.values import consistent, option_values, ordinary_value
from reference.numbers.formats import FORMATS

MOST_VALUES = 4
"""Values of one option that are asked, beside those that an observation holds."""


@dataclass(frozen=True)
class Call:
    """One observation with all its options: what is asked of a backend."""

    observation: Observation
    case: Case
    accepted: frozenset[str]
    """The options that the backend takes as keywords, and so those that the call gives it."""
    sees: tuple[str, ...] | None
    """The conventions that can change the answer; None stands for all."""
    upstream: tuple[np.ndarray, ...] = ()
    """The upstream gradient, where the gradient is asked."""

    @property
    def asked(self) -> Case:
        """The call without the options that the backend does not know."""
        return replace(self.case, options={n: x for n, x in self.case.options.items() if n in self.accepted})


@dataclass(frozen=True)
class Answer:
    """A call and what came back, as float64."""

    call: Call
    got: np.ndarray


@dataclass(frozen=True)
class Refusal:
    """A call that has no answer, and the reason."""

    call: Call
    reason: str


def accepted_options(backend: Backend, operation: str) -> frozenset[str]:
    """Tell the options of an operation that the backend takes as keywords."""
    keywords = backend.provided[operation]
    return frozenset(n for n in OPERATIONS[operation].options if keywords is None or n in keywords)


def ask(backend: Backend, call: Call) -> Answer | Refusal:
    """Make a call."""
    case = call.asked
    given = (case.operation, case.arguments, case.options, case.dtype)
    try:
        if not call.upstream:
            return Answer(call, backend.call(*given).values)
        name = OPERATIONS[case.operation].differentiable[0]
        slopes = backend.gradients(*given, [name], call.upstream[0]).gradients
        found = np.asarray(slopes[name], dtype=np.float64)
        if found.shape != case.arguments[name].shape:
            return Refusal(call, f"{case.operation} has a gradient of shape {found.shape} in {name}")
        return Answer(call, found)
    except (Limited, BadCall) as error:
        return Refusal(call, str(error))


def calls(family: Family, dtype: str, accepted: frozenset[str], limits: Limits) -> Iterator[Call]:
    """Each observation once plainly, and once more for each other value of an option that it varies.

    `limits` say which value of an option is plain, where a backend takes few.
    """
    operation = family.operation
    plain = {
        name: limits.get(name, (_plain(operation, name, name in accepted),))[0]
        for name in OPERATIONS[operation].options
    }
    for observation in family.observations:
        held = {name: x for name, x in observation.options.items() if name in accepted}
        first = _call(observation, family, {**plain, **held}, dtype, accepted, observation.sees)
        yield first
        for name in OPERATIONS[operation].options if observation.vary is None else observation.vary:
            for value in option_values(operation, name)[:MOST_VALUES] if name in accepted else ():
                if _differs(value, first.case.options[name]):
                    sees = None if observation.sees is None else (*observation.sees, name)
                    yield _call(
                        observation, family, {**first.case.options, name: value}, dtype, accepted, sees
                    )


def rounded(arguments: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Arguments that the dtype represents exactly."""
    form = FORMATS[dtype]
    return {
        name: form.round(x) if x is not None and x.dtype == np.float64 else x for name, x in arguments.items()
    }


def _call(
    observation: Observation,
    family: Family,
    options: dict[str, Any],
    dtype: str,
    accepted: frozenset[str],
    sees: tuple[str, ...] | None,
) -> Call:
    operation = OPERATIONS[family.operation]
    arguments = rounded(observation.arguments, dtype)
    options = consistent(operation.name, options, arguments)
    case = Case(operation.name, arguments, options, dtype, observation.name, exact=observation.exact)
    upstream: tuple[np.ndarray, ...] = ()
    if observation.gradient:
        shape = operation.result_shape(arguments)
        upstream = (FORMATS[dtype].round(np.random.default_rng(len(shape)).standard_normal(shape)),)
    return Call(observation, case, accepted, sees, upstream)


def _plain(operation: str, name: str, accepted: bool) -> Any:
    """What an option is unless an observation says otherwise."""
    default = OPERATIONS[operation].options[name]
    return ordinary_value(operation, name) if accepted or default is REQUIRED else default


def _differs(value: Any, other: Any) -> bool:
    return (type(value), value) != (type(other), other)
