"""Tasks with answers that can be checked: those of reasoning-gym, by name, alone or several at once.

A problem belongs to the training set or is held out by a hash of its prompt, whatever the seed, so that the
two have no problem in common.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np

from torch_impl import checks

Split = Literal["train", "held-out"]
SPLITS = ("train", "held-out")

HELD_OUT = 4
"""One problem in so many is held out."""

CHUNK = 32
"""So many problems are made at once."""
PATIENCE = 16
"""After so many chunks without a new problem, a task is said to have no more."""


@dataclass(frozen=True)
class Problem:
    """What is asked, and what is right."""

    prompt: str
    answer: str
    """One right answer; others may be right too."""
    task: str
    """The name that reasoning-gym knows the task by."""
    entry: dict[str, Any]
    """What reasoning-gym scores answers with."""


class Task:
    """Problems of one or several tasks of reasoning-gym, in turns."""

    def __init__(
        self,
        names: Sequence[str],
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        templates: Mapping[str, str] | None = None,
    ) -> None:
        self.names = tuple(names)
        if not self.names:
            raise ValueError("names must name at least one task, got none")
        self.name = "+".join(self.names)
        settings, templates = settings or {}, templates or {}
        for given, what in ((settings, "settings"), (templates, "templates")):
            for name in given:
                if name not in self.names:
                    raise ValueError(f"{what} must be for {', '.join(self.names)}, got some for {name!r}")
        self._sources = {
            name: _Source(name, settings.get(name, {}), templates.get(name, "{question}"))
            for name in self.names
        }

    def problems(self, split: Split = "train", *, count: int, seed: int = 0) -> list[Problem]:
        """So many problems of one split, the same ones for the same seed.

        Those of "train" are a stream, in which problems may recur; those of "held-out" are all different.
        Raises ValueError where a task does not have so many.
        """
        checks.choice("split", split, SPLITS)
        checks.integer("count", count, at_least=1)
        share, more = divmod(count, len(self.names))
        drawn = [
            self._sources[name].draw(split, share + (place < more), seed)
            for place, name in enumerate(self.names)
        ]
        return [drawn[k % len(drawn)][k // len(drawn)] for k in range(count)]

    def score(self, problem: Problem, response: str) -> float:
        """How right a response is, in [0, 1]: 1 is right. If something stands in <answer>, it is that."""
        return self._sources[problem.task].score(problem, response)

    def demonstrations(self, count: int, *, seed: int = 0) -> list[tuple[str, str]]:
        """Prompts of the training set with right answers, to start from."""
        return [(p.prompt, p.answer) for p in self.problems("train", count=count, seed=seed)]


def make(
    names: str | Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    templates: Mapping[str, str] | None = None,
) -> Task:
    """Tasks of reasoning-gym.

    Parameters
    ----------
    names : str or several
        As `reasoning_gym.create_dataset` knows them: "chain_sum", "gsm_symbolic", ...
    settings : dict of dicts
        For each name the keywords of its config: `{"chain_sum": {"min_terms": 2}}`. Not `seed` and `size`.
    templates : dict of str
        For each name how a prompt is made of "{question}" and the problem's metadata: `{"chain_sum":
        "{expression}="}`. The question alone, if none is given.

    Raises
    ------
    ValueError
        For a name, a keyword or a field of a template that there is not, with those that are near; for a
        value that the task refuses.

    Examples
    --------
    >>> task = make("chain_sum", {"chain_sum": {"max_terms": 2}}, templates={"chain_sum": "{expression}="})
    >>> [problem] = task.problems(count=1, seed=3)
    >>> task.score(problem, problem.answer)
    1.0
    """
    return Task([names] if isinstance(names, str) else names, settings, templates)


class _Source:
    """One task of reasoning-gym."""

    def __init__(self, name: str, settings: Mapping[str, Any], template: str) -> None:
        from reasoning_gym.factory import DATASETS

        known = sorted(set(DATASETS) - {"composite"})
        if name not in known:
            raise ValueError(f"names must be tasks of reasoning-gym, got {name!r}{_near(name, known)}")
        self.name, self.settings, self.template = name, dict(settings), template
        options = {field.name for field in fields(DATASETS[name][1])} - {"seed", "size"}
        for option in settings:
            if option not in options:
                raise ValueError(
                    f"settings of {name} must be of {', '.join(sorted(options))}, got {option!r}"
                )
        self._scorer = self._dataset(seed=0, size=1)
        [first] = self._entries(0, 1)
        if self.score(first, first.answer) < 1.0:
            raise ValueError(f"names must be tasks whose own answers are right, got {name!r}")

    def draw(self, split: str, count: int, seed: int) -> list[Problem]:
        """So many problems of a split; fewer are the first of more."""
        found: dict[object, Problem] = {}
        chunk = fruitless = 0
        while len(found) < count:
            before = len(found)
            for place, problem in enumerate(self._entries(_derived(self.name, seed, chunk), CHUNK)):
                if split_of(problem.prompt) == split:
                    key = problem.prompt if split == "held-out" else (chunk, place)
                    found.setdefault(key, problem)
            chunk += 1
            fruitless = fruitless + 1 if len(found) == before else 0
            if fruitless == PATIENCE:
                raise ValueError(
                    f"count must be at most {len(found)}, as many {split} problems of {self.name} as there "
                    f"seem to be, got {count}"
                )
        return list(found.values())[:count]

    def score(self, problem: Problem, response: str) -> float:
        """As reasoning-gym says; an answer on which its scoring breaks down is wrong."""
        from reasoning_gym.utils import extract_answer

        tagged = extract_answer(response)
        answer = (response if tagged is None else tagged).strip()
        try:
            return float(min(max(self._scorer.score_answer(answer, problem.entry), 0.0), 1.0))
        except Exception:
            return 0.0

    def _entries(self, seed: int, size: int) -> list[Problem]:
        with _seeded(seed):
            entries = list(self._dataset(seed=seed, size=size))
        return [Problem(self._prompt(e), str(e["answer"]), self.name, e) for e in entries]

    def _dataset(self, *, seed: int, size: int) -> Any:
        import reasoning_gym

        try:
            return reasoning_gym.create_dataset(self.name, **self.settings, seed=seed, size=size)
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(
                f"settings of {self.name} must be what it takes, got {self.settings}: {error}"
            ) from error

    def _prompt(self, entry: dict[str, Any]) -> str:
        known = {**entry["metadata"], "question": entry["question"]}
        try:
            return self.template.format(**known)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"templates for {self.name} may have {', '.join(sorted(known))}, got {self.template!r}"
            ) from error


def split_of(prompt: str) -> Split:
    """Which set a problem belongs to."""
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
    return "held-out" if int.from_bytes(digest[:8]) % HELD_OUT == 0 else "train"


def _derived(*parts: object) -> int:
    """A seed from others; neighbours of reasoning-gym's seeds share problems, these are far apart."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global generators, which some tasks draw from, seeded for a while."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=5, cutoff=0.4)
    return f"; near are {', '.join(near)}" if near else f"; there are {', '.join(known)}"
