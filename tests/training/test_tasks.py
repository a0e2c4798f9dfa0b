"""Tasks: problems of two sets that have none in common, by seed, and scores of answers."""

import random
import re
from typing import Any

import numpy as np
import pytest

from torch_impl.train import tasks
from torch_impl.train.tasks import Problem, Task, make, split_of

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

SMALL: dict[str, Any] = {"min_terms": 2, "max_terms": 2, "max_digits": 1}
NAMES = ["chain_sum", "spell_backward", "list_functions", "pool_matrix"]
"""The last two draw from global generators."""


def sums(**options: Any) -> Task:
    """Sums of two digits: a few hundred different problems."""
    return make("chain_sum", {"chain_sum": {**SMALL, **options}}, templates={"chain_sum": "{expression} ="})


@pytest.mark.parametrize("name", NAMES)
def test_no_problem_is_in_both_sets(name: str) -> None:
    task = make(name)
    train = {p.prompt for seed in range(3) for p in task.problems("train", count=30, seed=seed)}
    held_out = {p.prompt for seed in range(3) for p in task.problems("held-out", count=10, seed=seed)}
    assert train
    assert held_out
    assert not train & held_out


def test_not_even_where_there_are_few() -> None:
    """All problems there are."""
    task = sums()
    train = {p.prompt for p in task.problems("train", count=2000)}
    held_out = {p.prompt for p in task.problems("held-out", count=30, seed=1)}
    assert not train & held_out
    assert {split_of(prompt) for prompt in train} == {"train"}
    assert {split_of(prompt) for prompt in held_out} == {"held-out"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", tasks.SPLITS)
def test_a_seed_decides(name: str, split: tasks.Split) -> None:
    first = make(name).problems(split, count=6, seed=1)
    random.seed(99)
    same, other = (make(name).problems(split, count=6, seed=seed) for seed in (1, 2))
    assert [p.prompt for p in first] == [p.prompt for p in same]
    assert [p.answer for p in first] == [p.answer for p in same]
    assert [p.prompt for p in first] != [p.prompt for p in other]
    assert [p.prompt for p in make(name).problems(split, count=3, seed=1)] == [p.prompt for p in first[:3]]


@pytest.mark.parametrize("split", tasks.SPLITS)
def test_fewer_are_the_first_of_more(split: tasks.Split) -> None:
    many, few = (sums().problems(split, count=count) for count in (45, 20))
    assert [p.prompt for p in few] == [p.prompt for p in many[:20]]


def test_neighbouring_seeds_share_nothing_but_by_chance() -> None:
    """In reasoning-gym, problem i of seed s is problem i - 1 of seed s + 1."""
    first, second = (make("chain_sum").problems(count=50, seed=seed) for seed in (1, 2))
    assert len({p.prompt for p in first} & {p.prompt for p in second}) == 0


@pytest.mark.parametrize("name", ["list_functions", "pool_matrix"])
def test_global_generators_are_left_alone(name: str) -> None:
    numpy: Any = np.random.get_state
    before, before_numpy = random.getstate(), numpy()[1].copy()
    make(name).problems(count=3)
    assert random.getstate() == before
    assert np.array_equal(numpy()[1], before_numpy)


def test_held_out_problems_are_all_different() -> None:
    found = [p.prompt for p in sums().problems("held-out", count=40)]
    assert len(set(found)) == 40
    with pytest.raises(
        ValueError, match=r"count must be at most \d+, as many held-out problems of chain_sum as .*, got 400"
    ):
        sums().problems("held-out", count=400)


def test_training_goes_on_where_problems_recur() -> None:
    assert len(sums().problems("train", count=400)) == 400


def test_several_tasks_in_turns() -> None:
    task = make(["chain_sum", "spell_backward"], {"chain_sum": SMALL})
    assert task.name == "chain_sum+spell_backward"
    found = task.problems(count=5)
    assert [p.task for p in found] == ["chain_sum", "spell_backward"] * 2 + ["chain_sum"]
    assert all(task.score(p, p.answer) == 1.0 for p in found)
    assert [p.prompt for p in task.problems(count=3)] == [p.prompt for p in found[:3]]


def test_templates() -> None:
    assert re.fullmatch(r"\d [+-] \d =", sums().problems(count=1)[0].prompt)
    [plain] = make("chain_sum", {"chain_sum": SMALL}).problems(count=1)
    assert plain.prompt == plain.entry["question"]


def test_scores() -> None:
    task = sums()
    [problem] = task.problems(count=1)
    right = problem.answer
    assert task.score(problem, right) == 1.0
    assert task.score(problem, f"  {right}\n") == 1.0
    assert task.score(problem, f"I think <answer> {right} </answer>") == 1.0
    for wrong in ("", "no", f"{int(right) + 1}", f"{right} {right}"):
        assert 0.0 <= task.score(problem, wrong) < 1.0


def test_an_answer_on_which_scoring_breaks_down_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    task = sums()
    [problem] = task.problems(count=1)

    def broken(*_: Any, **__: Any) -> float:
        raise RuntimeError("cannot parse")

    monkeypatch.setattr(type(task._sources["chain_sum"]._scorer), "score_answer", broken)
    assert task.score(problem, "1") == 0.0
    with pytest.raises(ValueError, match=r"names must be tasks whose own answers are right, got 'chain_sum'"):
        sums()


def test_demonstrations_are_right_and_of_the_training_set() -> None:
    task = sums()
    found = task.demonstrations(20, seed=3)
    assert {split_of(prompt) for prompt, _ in found} == {"train"}
    by_prompt = {p.prompt: p for p in task.problems("train", count=20, seed=3)}
    assert all(task.score(by_prompt[prompt], answer) == 1.0 for prompt, answer in found)


def test_a_problem_is_what_was_asked() -> None:
    [problem] = sums().problems(count=1)
    assert isinstance(problem, Problem)
    assert problem.answer == problem.entry["answer"]
    with pytest.raises(AttributeError):
        problem.answer = "1"  # type: ignore[misc]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "near": (
        {"names": "chain_sums"},
        r"names must be tasks of reasoning-gym, got 'chain_sums'; near are chain_sum",
    ),
    "far": ({"names": "xyzzy"}, r"got 'xyzzy'; there are .*chain_sum, "),
    "composite": ({"names": "composite"}, r"names must be tasks of reasoning-gym, got 'composite'"),
    "none": ({"names": []}, r"names must name at least one task, got none"),
    "option": (
        {"names": "chain_sum", "settings": {"chain_sum": {"terms": 2}}},
        r"settings of chain_sum must be of allow_negation, max_digits, max_terms, .*, got 'terms'",
    ),
    "seed": (
        {"names": "chain_sum", "settings": {"chain_sum": {"seed": 2}}},
        r"settings of chain_sum must be of .*, got 'seed'",
    ),
    "value": (
        {"names": "chain_sum", "settings": {"chain_sum": {"min_terms": 9}}},
        r"settings of chain_sum must be what it takes, got {'min_terms': 9}: max_terms must be >= min_terms",
    ),
    "type": (
        {"names": "chain_sum", "settings": {"chain_sum": {"min_terms": "2"}}},
        r"settings of chain_sum must be what it takes, got {'min_terms': '2'}",
    ),
    "another": (
        {"names": "chain_sum", "settings": {"spell_backward": {}}},
        r"settings must be for chain_sum, got some for 'spell_backward'",
    ),
    "template": (
        {"names": "chain_sum", "templates": {"chain_sum": "{formula}"}},
        r"templates for chain_sum may have .*expression.*, got '{formula}'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_bad_counts_and_splits_are_named() -> None:
    with pytest.raises(ValueError, match=r"count must be an integer of at least 1, got int 0"):
        sums().problems(count=0)
    with pytest.raises(ValueError, match=r"split must be one of 'train', 'held-out', got str 'test'"):
        sums().problems("test", count=1)  # type: ignore[arg-type]
