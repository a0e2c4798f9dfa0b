"""Inputs at which an option shows: one of its values and others have no permitted answer in common there."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from conformance.cases import Case, Limits, draw_case
from conformance.draws import ByText
from conformance.operations import OPERATIONS
from conformance.oracle import Permitted, judged, permitted
from conformance.values import consistent, reads
from reference.numbers.formats import FORMATS

REGIONS = ("generic", "exact", "holes", "empty-rows")
TURNS = 4
"""Inputs drawn from each region, at most, to tell a value from others."""

SUM_NORM, SEQUENCE_MEAN = "seq-mean-token-sum-norm", "seq-mean-token-mean"
PPO: dict[str, Any] = {"algorithm": "ppo"}
TWICE: dict[str, Any] = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": None}
ADAM: dict[str, Any] = {**PPO, "optimizer": "adam", "learning_rate": 0.5, "max_grad_norm": None}
TRPO: dict[str, Any] = {"algorithm": "trpo"}
WITH: dict[str, dict[str, Any]] = {
    "horizon": {"aggregation": SUM_NORM},
    "aggregate.horizon": {"mode": SUM_NORM},
    "empty_rows": {"aggregation": SEQUENCE_MEAN},
    "aggregate.empty_rows": {"mode": SEQUENCE_MEAN},
    "log_ratio_clip": {"dual_clip": None},
    "kl_estimate.log_ratio_clip": {"value_clip": None, "estimator": "k1"},
    "kl_estimate.value_clip": {"log_ratio_clip": None, "estimator": "k1"},
    "label_smoothing": {"loss_type": "sigmoid"},
    "loss_type": {"label_smoothing": 0.0},
    "group_advantages.ddof": {"scale": "std"},
    "group_advantages.eps": {"scale": "std"},
    "cg_iters": {"cg_tol": 0.0, "damping": 0.0, "max_kl": 0.5},
    "cg_tol": {"damping": 0.0, "max_kl": 0.5},
    "damping": {"cg_iters": 1, "max_kl": 0.5},
    "optimizer": {**PPO, "learning_rate": 0.5},
    "max_grad_norm": {**PPO, "optimizer": "sgd"},
    "clip_eps": {**PPO, "optimizer": "sgd", "max_grad_norm": 0.1},
    "beta1": {**ADAM, "epochs": 2},
    "beta2": {**ADAM, "epochs": 2},
    "adam_eps": {**ADAM, "epochs": 1},
    "epochs": {**PPO, "optimizer": "sgd", "learning_rate": 0.5},
    "minibatch_rows": {**PPO, "optimizer": "sgd", "learning_rate": 0.5},
    "train_step.gamma": {**PPO, **TWICE},
    "train_step.lam": {**PPO, **TWICE, "gamma": 1.0},
    "train_step.clip_low": {**PPO, **TWICE},
    "train_step.clip_high": {**PPO, **TWICE},
    "train_step.value_clip": {**PPO, **TWICE},
    "value_coef": {**PPO, **TWICE},
    "learning_rate": {**PPO, "optimizer": "sgd", "max_grad_norm": None},
    "train_step.kl_coef": {"algorithm": "grpo", **TWICE},
    "train_step.aggregation": {**PPO, "optimizer": "sgd"},
    "train_step.beta": {"algorithm": "dpo", **TWICE},
    "train_step.max_kl": {**TRPO, "cg_iters": 1},
    "train_step.cg_iters": {**TRPO, "damping": 0.0},
    "train_step.damping": {**TRPO, "cg_iters": 1},
}
"""Values of other options at which an option shows; an entry "operation.option" goes before "option"."""


def telling(
    operation: str, dtype: str, name: str, value: Any, others: Iterable[Any], limits: Limits
) -> tuple[list[Case], list[Any]]:
    """Calls with a value of an option in which others would give other answers; and those that none tells."""
    left = [x for x in dict.fromkeys(others) if x != value]
    found = []
    for case in _inputs(operation, dtype, name, value, limits):
        if not left:
            break
        allowed = permitted(case)
        variants = {x: permitted(case.with_options(**{name: x})) for x in left if _goes(case, name, x)}
        told = [x for x, other in variants.items() if _apart(case, allowed, other)]
        if told:
            found.append(case)
            left = [x for x in left if x not in told]
    return found, left


def _goes(case: Case, name: str, value: Any) -> bool:
    """Whether a call may have this value of an option, the others being what they are."""
    options = {**case.options, name: value}
    return consistent(case.operation, options, case.arguments) == options


def _apart(case: Case, allowed: Permitted, other: Permitted) -> bool:
    """Whether two permitted sets have no number of the dtype in common at some specified element."""
    largest = FORMATS[case.dtype].largest
    for i in judged(case, allowed.balls):
        first, second = (np.clip(x.bounds(i), -largest, largest) for x in (allowed, other))
        if first[1] < second[0] or second[1] < first[0]:
            return True
    return False


def _inputs(operation: str, dtype: str, name: str, value: Any, limits: Limits) -> Iterator[Case]:
    """Calls with a value of an option, the same on every machine, shaped so that the option may show."""
    known = OPERATIONS[operation].options
    fixed = {k: x for k, x in of_option(WITH, operation, name, {}).items() if k in known} | {name: value}
    shape = of_option(SHAPES, operation, name, lambda case: [case])
    for turn, region in itertools.product(range(TURNS), REGIONS):
        draw = ByText(f"{operation} {name} {region} {turn}")
        drawn = draw_case(draw, operation, region, dtype, limits, fixed)
        if drawn.options[name] == value and reads(operation, drawn.options, name):
            yield from shape(drawn)


def of_option(table: dict[str, Any], operation: str, name: str, otherwise: Any) -> Any:
    """An entry of a table by option; one for the operation's own goes before."""
    return table.get(f"{operation}.{name}", table.get(name, otherwise))


def _far_ratios(case: Case) -> Iterator[Case]:
    """Tokens far more likely than before, as far as the dtype can tell, of negative advantage."""
    beside = "old_logprobs" if "old_logprobs" in case.arguments else "ref_logprobs"
    for far in (70.0, 30.0, 5.0, 2.0, 1.0):
        logprobs = np.full((1, 2), -1.0)
        found: dict[str, Any] = {name: logprobs for name in ("ref_logprobs",) if name in case.arguments}
        found |= {"logprobs": logprobs, beside: logprobs - far}
        found |= {a.name: -np.ones((1, 2)[: len(a.shape)]) for a in _of_kind(case, "advantages")}
        found |= {a.name: np.ones((1, 2), dtype=bool) for a in _of_kind(case, "mask")}
        found |= {a.name: None for a in _of_kind(case, "rollout_weights")}
        yield case.with_arguments(**found)


def _far_and_wanted(case: Case) -> Iterator[Case]:
    """The same, of positive advantage."""
    for far in _far_ratios(case):
        yield far.with_arguments(advantages=-far.arguments["advantages"])


def _of_kind(case: Case, name: str) -> list[Any]:
    """The argument of this name, if the operation has it."""
    return [a for a in OPERATIONS[case.operation].arguments if a.name == name]


def _moved_values(case: Case) -> Iterator[Case]:
    """A value that has moved to its return, further than a clip would let it."""
    for far in (2.0, 5.0):
        place, start = np.full((1, 1), far), np.zeros((1, 1))
        found = {"values": place, "old_values": start, "returns": place, "mask": place > 0}
        yield case.with_arguments(**found)


def _small_spread(case: Case) -> Iterator[Case]:
    """Numbers that are as small as what is added to their deviation or variance."""
    numbers, found = np.array([0.0, 1.0, 2.0, 1.0, 3.0, 5.0]), {}
    for exponent in (-10, -13, -20):
        if case.operation == "whiten":
            found["x"], found["mask"] = 2.0**exponent * numbers[None], np.ones((1, 6), dtype=bool)
        else:
            found["scores"], found["group_ids"] = 2.0**exponent * numbers, np.zeros(6, dtype=np.int64)
        yield case.with_arguments(**found)


def _several_rates(case: Case) -> Iterator[Case]:
    """Steps of several lengths: the second starts where the ratio has left its range, or not."""
    for rate in (0.5, 1.0, 2.0):
        yield case.with_options(learning_rate=rate)


def _small_gradients(case: Case) -> Iterator[Case]:
    """Gradients whose norm lies between tolerances."""
    for norm in (2.0**-37, 2.0**-28, 2.0**-21, 2.0**-18):
        yield case.with_arguments(matrix=np.eye(1), gradient=norm * np.ones(1))


def _one_dimension(case: Case) -> Iterator[Case]:
    """Few enough operations for a dtype of few bits."""
    yield case.with_arguments(matrix=0.25 * np.eye(1), gradient=np.ones(1))


def _many_steps(case: Case) -> Iterator[Case]:
    """A chain along which each step goes on by one place; a matrix for which three are enough."""
    links = np.eye(12, k=1) + np.eye(12, k=-1)
    yield case.with_arguments(matrix=2.25 * np.eye(12) - links, gradient=np.eye(1, 12)[0])
    for tolerance in (0.01, 0.125):
        few = case.with_arguments(matrix=np.diag([1.0, 2.0, 4.0]), gradient=np.ones(3))
        yield few.with_options(cg_tol=tolerance)


def _too_long_a_step(case: Case) -> Iterator[Case]:
    """Steps that come into the region after so many halvings."""
    step = np.ones(1)
    for tries in (1, 5, 12):
        found = {"matrix": 2.0 * np.eye(1), "slope": 2.0 * step, "parameters": 0.0 * step, "full_step": step}
        yield case.with_arguments(**found).with_options(max_kl=1.5 * 0.25**tries)


SHAPES: dict[str, Callable[[Case], Iterator[Case]]] = {
    "log_ratio_clip": _far_ratios,
    "kl_estimate.value_clip": _far_ratios,
    "dual_clip": _far_ratios,
    "clip_high": _far_and_wanted,
    "train_step.clip_high": _several_rates,
    "value_loss.clip": _moved_values,
    "whiten.eps": _small_spread,
    "group_advantages.eps": _small_spread,
    "cg_tol": _small_gradients,
    "trust_region_step.damping": _one_dimension,
    "trust_region_step.cg_iters": _many_steps,
    "train_step.clip_low": _several_rates,
    "backtrack": _too_long_a_step,
    "max_steps": _too_long_a_step,
}
"""How a drawn call is made one in which an option shows; an entry "operation.option" goes before "option"."""
