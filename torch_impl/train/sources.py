"""What a run learns from: a task, or JSONL files; a part of it is never trained on."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch_impl.train import tasks
from torch_impl.train.data import (
    DataError,
    Demonstration,
    Preference,
    preference_pairs,
    read_preferences,
    read_prompts,
    read_sft,
)
from torch_impl.train.seeds import derived, permutation
from torch_impl.train.settings import PairOptions, Problems
from torch_impl.train.tasks import Problem, Split, Task, split_of

Row = TypeVar("Row", Demonstration, Preference, Problem)


class Questions(Protocol):
    """Problems with answers that can be scored."""

    name: str

    def problems(self, split: Split = "train", *, count: int, seed: int = 0) -> list[Problem]:
        """So many problems of one split."""

    def score(self, problem: Problem, response: str) -> float:
        """How right a response is, in [0, 1]."""


class FileQuestions:
    """Prompts of a file, whose answers have to be given word for word."""

    def __init__(self, path: str, held_out: str | None = None) -> None:
        self.name = path
        self._split = _divided(_problems(path), None if held_out is None else _problems(held_out), path)

    def problems(self, split: Split = "train", *, count: int, seed: int = 0) -> list[Problem]:
        """All to train on; of the held-out ones so many, or all that there are; in an order by the seed."""
        rows = self._split[split]
        order = permutation(len(rows), "file", split, seed).tolist()
        return [rows[k] for k in (order if split == "train" else order[:count])]

    def score(self, problem: Problem, response: str) -> float:
        """1 for the answer, spaces around it aside, else 0."""
        return float(response.strip() == problem.answer.strip())


def questions(settings: Problems) -> Questions:
    """What policies are asked."""
    if settings.file is not None:
        return FileQuestions(settings.file, settings.held_out_file)
    return _task(settings)


def demonstrations(settings: Problems, seed: int) -> dict[Split, list[Demonstration]]:
    """Right responses to train on, and some to measure by."""
    if settings.file is not None:
        return _divided(read_sft(settings.file), _held_out(settings, read_sft), settings.file)
    task, seed = _task(settings), derived(seed, "sft")
    return {
        "train": _answers(task.problems("train", count=settings.train, seed=seed)),
        "held-out": _answers(task.problems("held-out", count=settings.held_out, seed=seed)),
    }


def preferences(settings: Problems, options: PairOptions, seed: int) -> dict[Split, list[Preference]]:
    """Pairs to train on, and pairs to measure by."""
    if settings.file is not None:
        held_out = _held_out(settings, read_preferences)
        return _divided(read_preferences(settings.file), held_out, settings.file)
    task, seed, kind = _task(settings), derived(seed, "pairs"), options.rejected
    return {
        "train": preference_pairs(task, settings.train, split="train", seed=seed, rejected=kind),
        "held-out": preference_pairs(task, settings.held_out, split="held-out", seed=seed, rejected=kind),
    }


def _answers(problems: list[Problem]) -> list[Demonstration]:
    return [Demonstration(p.prompt, p.answer) for p in problems]


def _task(settings: Problems) -> Task:
    """The task, with those of the options and templates that are for it."""
    options = {name: held for name, held in settings.options.items() if name in settings.names}
    templates = {name: held for name, held in settings.templates.items() if name in settings.names}
    return tasks.make(settings.names, options, templates=templates)


def _problems(path: str) -> list[Problem]:
    rows = read_prompts(path)
    for number, row in enumerate(rows, 1):
        if row.answer is None:
            raise DataError(f"{path}, row {number}: field 'answer' is missing, expected a string to score by")
    return [Problem(row.prompt, str(row.answer), path, {}) for row in rows]


def _held_out(settings: Problems, reader: Callable[[str], list[Row]]) -> list[Row] | None:
    return None if settings.held_out_file is None else reader(settings.held_out_file)


def _divided(rows: list[Row], held_out: list[Row] | None, path: str) -> dict[Split, list[Row]]:
    """Rows to train on and rows that are held out: another file's, or some by a hash of their prompts."""
    if held_out is not None:
        return {"train": rows, "held-out": held_out}
    found: dict[Split, list[Row]] = {"train": [], "held-out": []}
    for row in rows:
        found[split_of(row.prompt)].append(row)
    for split, some in found.items():
        if not some:
            raise DataError(f"{path}: expected rows for both sets, got none for {split}; name another file")
    return found
