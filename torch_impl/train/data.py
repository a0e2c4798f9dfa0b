"""Local data: JSONL files of prompts, preferences and demonstrations, and pairs made from a task.

A line is a JSON object with strings: `prompt`, and `answer`; `prompt`, `chosen`, `rejected` and a number
`margin`; `prompt` and `response`. Blank lines are passed over, and so are other fields.
"""

import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch_impl import checks
from torch_impl.train.tasks import Split, Task


class DataError(ValueError):
    """A file that cannot be read: which, at which line and field, what was expected, and what came."""


@dataclass(frozen=True)
class Prompt:
    """Something to answer."""

    prompt: str
    answer: str | None = None


@dataclass(frozen=True)
class Preference:
    """Two responses, of which one is preferred."""

    prompt: str
    chosen: str
    rejected: str
    margin: float = 0.0
    """By how much a reward model's scores should differ at least, in log-odds."""


@dataclass(frozen=True)
class Demonstration:
    """A response to learn from."""

    prompt: str
    response: str


def read_prompts(path: str | Path) -> list[Prompt]:
    """Lines with `prompt`, and `answer` where there is one. Raises DataError."""
    return _read(path, Prompt, required=("prompt",), optional={"answer": str})


def read_preferences(path: str | Path) -> list[Preference]:
    """Lines with `prompt`, `chosen` and `rejected`, and a `margin`, 0 if there is none. Raises DataError."""
    return _read(path, Preference, required=("prompt", "chosen", "rejected"), optional={"margin": float})


def read_sft(path: str | Path) -> list[Demonstration]:
    """Lines with `prompt` and `response`. Raises DataError."""
    return _read(path, Demonstration, required=("prompt", "response"), optional={})


def write(path: str | Path, rows: Iterable[Prompt | Preference | Demonstration]) -> None:
    """Write rows as lines that the functions above read."""
    lines = ({k: x for k, x in asdict(row).items() if x is not None} for row in rows)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    Path(path).write_text(text, encoding="utf-8")


Wrong = Literal["other", "repeated"]


def preference_pairs(
    task: Task, count: int, *, split: Split = "train", seed: int = 0, rejected: Wrong = "other"
) -> list[Preference]:
    """Pairs from a task: the right answer is chosen, a wrong one rejected; the same for the same seed.

    ============  ===============================================================================
    "other"       the answer to another problem: what is right has to be found out
    "repeated"    the right answer twice: the two can be told apart by how they look (separable)
    ============  ===============================================================================

    Raises ValueError where no wrong answer is to be found.
    """
    checks.choice("rejected", rejected, ("other", "repeated"))
    problems = task.problems(split, count=count, seed=seed)
    draw = random.Random(f"pairs {task.name} {split} {seed}")
    pairs = []
    for problem in problems:
        others = draw.sample(problems, len(problems)) if rejected == "other" else [problem]
        answers = (p.answer if rejected == "other" else f"{p.answer} {p.answer}" for p in others)
        wrong = next((answer for answer in answers if task.score(problem, answer) < 1.0), None)
        if wrong is None:
            raise ValueError(
                f"task must have wrong answers that are {rejected!r}, got none to {problem.prompt!r}"
            )
        pairs.append(Preference(problem.prompt, problem.answer, wrong))
    return pairs


Row = TypeVar("Row", Prompt, Preference, Demonstration)


def _read(
    path: str | Path, kind: type[Row], *, required: tuple[str, ...], optional: dict[str, type]
) -> list[Row]:
    fields = dict.fromkeys(required, str) | optional
    found = []
    for place, line in _lines(Path(path)):
        given = _object(line, place)
        for name in required:
            if name not in given:
                raise DataError(f"{place}: field {name!r} is missing, expected a string{_near(name, given)}")
        for name in optional.keys() - given.keys():
            if near := _near(name, set(given) - set(fields)):
                raise DataError(f"{place}: field {name!r} is missing{near}")
        held = {
            name: x for name, x in given.items() if name in fields and (x is not None or name in required)
        }
        found.append(kind(**{name: _value(name, x, fields[name], place) for name, x in held.items()}))
    if not found:
        raise DataError(f"{path}: expected at least one line, got none")
    return found


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each after its place."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a file of JSON lines, got {error.strerror or error}") from error
    for number, line in enumerate(content.split(b"\n"), 1):
        place = f"{path}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{place}: expected UTF-8, got {error.object[error.start : error.end]!r}"
            ) from error
        if text.strip():
            yield place, text


def _object(line: str, place: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, _ in pairs:
            if sum(name == other for other, _ in pairs) > 1:
                raise DataError(f"{place}: field {name!r} is expected once, got it more than once")
        return dict(pairs)

    try:
        found = json.loads(line, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{place}: expected a JSON object, got {_shown(line)} ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{place}: expected a JSON object, got {_shown(line)}")
    return found


def _value(name: str, x: Any, kind: type, place: str) -> Any:
    """A string that can be encoded, or a finite number."""
    if kind is float:
        if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
            raise DataError(f"{place}: field {name!r} must be a finite number, got {_shown(x)}")
        return float(x)
    if not isinstance(x, str):
        raise DataError(f"{place}: field {name!r} must be a string, got {_shown(x)}")
    if name == "prompt" and not x:
        raise DataError(f"{place}: field {name!r} must not be empty, got ''")
    try:
        x.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: field {name!r} must be text, got half of a character, {_shown(x)}"
        ) from error
    return x


def _near(name: str, given: Iterable[str]) -> str:
    near = get_close_matches(name, given, n=1)
    return f"; there is {near[0]!r}" if near else ""


def _shown(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 60 else f"{text[:57]}..."
