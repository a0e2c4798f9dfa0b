"""What a failure says first: the likeliest cause; and no more than fits."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conformance.cases import Case, ordinary
from conformance.failure import ABOUT_CALLS, LINES, SENTENCE_LINES, story
from conformance.messages import MAX_NOTES, element, explanations, mismatch, other_options
from conformance.oracle import permitted, permitted_gradients
from tests.harness.suite import ROOT

LONG, SHORT = "contract.constants", "gae.lambda-zero"
"""Clauses with a sentence of more lines than are shown, and of one."""


def test_a_bootstrap_ignored_is_told_before_options_that_agree() -> None:
    """With one action nothing but the critic moves, and with no bootstrap it has nowhere to go."""
    case = ordinary("train_step", "float64", {}, sizes={"B": 2, "T": 1, "S": 1, "A": 1, "A+1": 2})
    still = {name: np.zeros_like(case.arguments[name]) for name in ("parameters", "rewards")}
    case = case.with_arguments(**still, bootstrap_value=np.ones(2)).with_options(gamma=1.0)
    ignored = case.with_arguments(bootstrap_value=np.zeros(2))
    notes = list(islice(explanations(case, _answer(ignored), permitted(case)), MAX_NOTES))
    assert notes[0] == "train_step with bootstrapping from 0"


def test_another_algorithm_is_the_last_variant() -> None:
    labels = [label for label, _ in other_options(ordinary("train_step", "float64", {}))]
    algorithms = [label for label in labels if "algorithm=" in label]
    assert len(algorithms) > 1
    assert labels[-len(algorithms) :] == algorithms


def test_an_odd_number_of_rows_has_no_variant_that_reads_pairs() -> None:
    labels = [label for label, _ in other_options(_of_rows(3))]
    assert any("algorithm='grpo'" in label for label in labels)
    assert not any("algorithm='dpo'" in label for label in labels)
    assert any("algorithm='dpo'" in label for label, _ in other_options(_of_rows(2)))


def _of_rows(count: int) -> Case:
    case = ordinary("train_step", "float64", {}, sizes={"B": 4})
    rows = {name: case.arguments[name][:count] for name in ("states", "actions", "rewards", "mask")}
    others = {name: case.arguments[name][:count] for name in ("bootstrap_value", "group_ids")}
    return case.with_arguments(**rows, **others)


def test_a_number_that_a_call_is_about_is_no_variant() -> None:
    case = ordinary("adaptive_kl_coef", "float64", {})
    other = case.with_options(coef=1.0)
    assert _answer(other) != _answer(case)
    assert list(explanations(case, _answer(other), permitted(case))) == []


def test_an_option_that_changes_nothing_is_no_variant() -> None:
    """One token a row: the ratio of a sequence is that of its token."""
    case = ordinary("policy_loss", "float32", {}, sizes={"B": 3, "T": 1})
    case = case.with_options(ratio_level="token", aggregation="token-mean", clip_low=0.2)
    assert list(explanations(case, _answer(case) * 1.0001, permitted(case))) == []
    notes = explanations(case, _answer(case.with_options(clip_low=0.5)), permitted(case))
    assert not any("ratio_level" in note for note in notes)


def test_exchanged_bounds_are_told_before_an_option_that_agrees() -> None:
    """One token, whose ratio leaves its range above: an upper bound of 0 gives the same."""
    token = {"logprobs": np.full((1, 1), -1.0), "old_logprobs": np.full((1, 1), -1.25)}
    case = ordinary("policy_loss", "float32", {}, sizes={"B": 1, "T": 1})
    case = case.with_arguments(**token, advantages=np.ones((1, 1))).with_options(clip_low=0.0, clip_high=0.28)
    got = _answer(case.with_options(clip_low=0.28, clip_high=0.0))
    notes = list(explanations(case, got, permitted(case)))
    assert notes[0] == "policy_loss with clip_low and clip_high exchanged"
    assert "policy_loss with clip_high=0.0" in notes


@pytest.mark.parametrize("operation", ["td_errors", "gae"])
def test_a_mask_that_is_ignored_is_told_once(operation: str) -> None:
    case = ordinary(operation, "float32", {})
    case = case.with_arguments(mask=np.resize([True, False, True], (3, 5))).with_options(gamma=1.0)
    got = _answer(case.with_arguments(mask=np.ones((3, 5), dtype=bool)))
    (note,) = [note for note in explanations(case, got, permitted(case)) if "mask" in note]
    assert "ignore" in note


@pytest.mark.parametrize("got", [[0.0, 0.0], [0.0, 1.0]])
def test_a_gradient_that_does_not_arrive(got: list[float]) -> None:
    case = ordinary("importance_ratio", "float32", {}, sizes={"B": 1, "T": 2})
    upstream = np.ones((1, 2))
    allowed = permitted_gradients(case, upstream)["logprobs"]
    told = mismatch(case, np.array([got]), allowed, (0, 0), "logprobs", upstream)
    assert any("is something detached?" in line for line in told) == (not any(got))


def test_a_number_alone_has_no_index() -> None:
    assert element(()) == "result"
    assert element((), "x") == "gradient in x"
    assert element((0, 2), "x") == "gradient in x[0, 2]"


def test_nan_is_at_no_distance() -> None:
    case = ordinary("whiten", "float32", {}, sizes={"B": 1, "T": 2})
    for got, is_told in ((np.full((1, 2), 7.0), True), (np.full((1, 2), np.nan), False)):
        lines = mismatch(case, got, permitted(case), (0, 0))
        assert any("half widths" in line for line in lines) == is_told


@pytest.mark.parametrize(
    ("dtype", "factor", "is_told"),
    [
        ("float64", 1 + 2.0**-24, True),
        ("float64", 1 + 2.0**-40, False),
        ("float64", 1.01, False),
        ("float32", 1 + 2.0**-16, False),
    ],
)
def test_an_error_in_float64_as_large_as_those_of_float32(dtype: str, factor: float, is_told: bool) -> None:
    case = ordinary("gae", dtype, {})
    told = mismatch(case, _answer(case) * factor, permitted(case), (0, 0))
    assert any("as far off as float32 would be" in line for line in told) == is_told


@pytest.mark.parametrize("slug", ABOUT_CALLS)
def test_a_clause_about_calls_is_named_for_a_number(slug: str) -> None:
    assert ABOUT_CALLS[slug] in _lines((slug,), "told\ngot        result = 1.0")
    assert ABOUT_CALLS[slug] not in _lines((slug,), "td_errors returned shape (3, 4), expected (B, T)")
    assert ABOUT_CALLS[slug] not in _lines((SHORT, slug), "told\ngot        result = 1.0")


@pytest.mark.parametrize("also", [(), ("gae.mask",)])
@pytest.mark.parametrize("count", range(LINES + 1))
def test_a_sentence_is_cut_to_what_is_left(count: int, also: tuple[str, ...]) -> None:
    lines = _story((LONG, *also), count)
    sentence = [line for line in lines if line.startswith(" " * 11)]
    around = len(lines) - len(sentence)
    assert len(sentence) == max(1, min(SENTENCE_LINES, LINES - around))
    assert sentence[-1].endswith(" ...")
    assert lines[-1].startswith("again      ")
    assert len(lines) <= max(LINES, around + 1)


def test_a_short_sentence_stays_as_it_is() -> None:
    (sentence,) = [line for line in _story((SHORT,), LINES) if line.startswith(" " * 11)]
    assert not sentence.endswith(" ...")


def _answer(case: Case) -> np.ndarray:
    """What a call gives, in float64."""
    allowed = permitted(case)
    bounds = [np.mean(allowed.bounds(index)) for index in np.ndindex(allowed.balls.shape)]
    return np.reshape(bounds, allowed.balls.shape)


def _story(slugs: tuple[str, ...], count: int) -> list[str]:
    """The lines of a failure with a body of so many."""
    return _lines(slugs, "\n".join(["told"] * count))


def _lines(slugs: tuple[str, ...], body: str) -> list[str]:
    """The lines of a failure with a body."""
    given: dict[str, Any] = {"backend": "x.py", "device": "cpu", "profile": "default", "seed": 0}
    config = SimpleNamespace(
        invocation_params=SimpleNamespace(dir=ROOT), getoption=lambda name: given.get(name[2:], 60.0)
    )
    item: Any = SimpleNamespace(
        callspec=SimpleNamespace(params={"run": ("gae", "float64")}),
        config=config,
        path=Path(ROOT, "conformance", "test_gae.py"),
        name="test_it[gae-float64]",
    )
    return story(item, slugs, body, "x").splitlines()
