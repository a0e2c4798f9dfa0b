"""A backend made of a formula: it answers in this process, with numbers rounded to the dtype."""

from typing import Any

import numpy as np

from conformance.backend import Limited, Output, Slopes
from conformance.cases import Case
from conformance.conventions.family import Hypothesis
from conformance.operations import OPERATIONS
from conformance.oracle import computed
from conformance.reproduction import Source
from reference.numbers.formats import FORMATS


class FormulaBackend:
    """Follows one reading of one operation, in float64 inside; it takes every option."""

    device, name = "cpu", "a formula"
    source = Source("a formula", False, "numpy", "cpu")

    def __init__(self, reading: Hypothesis) -> None:
        self.reading = reading
        self.provided: dict[str, list[str] | None] = {reading.family.operation: None}

    def limits(self, operation: str) -> dict[str, tuple[Any, ...]]:
        return {}

    def call(self, operation: str, arguments: dict[str, Any], options: dict[str, Any], dtype: str) -> Output:
        case = Case(operation, arguments, options, dtype, "")
        return Output(FORMATS[dtype].round(computed(case, self.reading.formula)), dtype)

    def gradients(
        self, operation: str, arguments: dict[str, Any], options: dict[str, Any], dtype: str,
        names: list[str], cotangent: np.ndarray,
    ) -> Slopes:  # fmt: skip
        formula, [name] = self.reading.gradient, OPERATIONS[operation].differentiable[:1] or [""]
        if formula is None or names != [name]:
            raise Limited("no gradients")
        case = Case(operation, arguments, options, dtype, "")
        return Slopes({name: FORMATS[dtype].round(computed(case, formula, cotangent))})
