"""Every operation of the reference agrees with a second definition, in value and gradient, on 1000 inputs."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings

from conformance.cases import Case
from conformance.operations import CHAPTERS as OPERATIONS_OF
from conformance.operations import OPERATIONS
from conformance.protocol import Operation
from tests.examples import examples
from tests.formulas.agreement import CHAPTERS, agrees, second
from tests.formulas.drawing import Call, calls, values_of

INPUTS = 1000
"""Inputs that are drawn for each operation."""
FEWER = {"train_step": 200}
"""But for one that is many others in one."""

DEFINITIONS: dict[str, Callable[..., Any]] = {
    name: definition for chapter in CHAPTERS.values() for name, definition in chapter.DEFINITIONS.items()
}

DRAWN = settings(max_examples=INPUTS, derandomize=True, phases=[Phase.generate], deadline=None)
"""As many inputs, of which the first will do that has a property."""

every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def test_every_operation_has_one_in_its_chapter() -> None:
    defined = {chapter: set(module.DEFINITIONS) for chapter, module in CHAPTERS.items()}
    assert defined == {chapter: {op.name for op in group} for chapter, group in OPERATIONS_OF.items()}


def test_every_differentiable_operation_has_a_gradient_to_agree_with() -> None:
    for operation in OPERATIONS.values():
        assert bool(operation.differentiable) == (operation.gradient is not None)


@every_operation
def test_agreement(operation: Operation) -> None:
    seen = Counter[str]()
    options: set[tuple[str, str]] = set()

    count = FEWER.get(operation.name, INPUTS)

    @examples(count)
    @given(calls(operation.name))
    def on(call: Call) -> None:
        assert agrees(operation, DEFINITIONS[operation.name], call)
        seen.update(inputs=1, in_floats=call.in_floats)
        options.update((name, repr(value)) for name, value in call.case.options.items())

    on()
    assert seen["inputs"] >= count
    assert seen["in_floats"] >= count / 8
    assert options == {(name, repr(x)) for name in operation.options for x in values_of(operation.name, name)}


@pytest.mark.parametrize(
    "name", ["importance_ratio", "kl_estimate", "policy_loss", "value_loss", "grpo_loss"]
)
def test_corners_are_among_the_inputs(name: str) -> None:
    """Calls on which a gradient has two sides, both of which have to lie in the reference's."""

    def has_two_sides(call: Call) -> bool:
        slopes = second(OPERATIONS[name], DEFINITIONS[name], call).slopes
        return len(slopes) == 2 and slopes[0] != slopes[1]

    find(calls(name), has_two_sides, settings=DRAWN)


def test_both_sides_of_the_hinge() -> None:
    """βh = 1, which few draws meet."""
    names = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")
    arguments = {name: np.array([x]) for name, x in zip(names, (-1.0, -3.0, -2.0, -2.0), strict=True)}
    options = {"beta": 0.5, "label_smoothing": 0.0, "loss_type": "hinge"}
    call = Call(Case("dpo_loss", arguments, options, "float64", "corner"), np.array(-1.5), in_floats=True)
    assert len(second(OPERATIONS["dpo_loss"], DEFINITIONS["dpo_loss"], call).slopes) == 2
    assert agrees(OPERATIONS["dpo_loss"], DEFINITIONS["dpo_loss"], call)


@every_operation
def test_a_little_more_is_seen(operation: Operation) -> None:
    """The agreement is not empty: results, other forms and gradients that are off by a hair do not agree."""
    wrong = [replace(operation, reference=off_by_a_hair(operation.reference))]
    wrong += [replace(operation, forms=(off_by_a_hair(form),)) for form in operation.forms]
    if operation.gradient is not None:
        wrong.append(replace(operation, gradient=off_by_a_hair(operation.gradient)))
    for changed in wrong:

        def differs(call: Call, changed: Operation = changed) -> bool:
            return not agrees(changed, DEFINITIONS[operation.name], call)

        find(calls(operation.name), differs, settings=DRAWN)


def off_by_a_hair(formula: Callable[..., Any]) -> Callable[..., Any]:
    """The formula with a result, or its last one, larger by one part in 2⁴⁰."""

    def larger(x: Any) -> Any:
        return x * (1 + 2.0**-40)

    def changed(*arguments: Any, **options: Any) -> Any:
        result = formula(*arguments, **options)
        if isinstance(result, dict):
            return {name: larger(x) for name, x in result.items()}
        return (*result[:-1], larger(result[-1])) if isinstance(result, tuple) else larger(result)

    return changed
