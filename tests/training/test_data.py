"""Local data: what is read, what is refused and how it says so, and pairs from a task."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.training import small_runs
from torch_impl.train.data import (
    DataError,
    Demonstration,
    Preference,
    Prompt,
    Wrong,
    preference_pairs,
    read_preferences,
    read_prompts,
    read_sft,
    write,
)
from torch_impl.train.pairs import collate_pairs
from torch_impl.train.settings import Problems
from torch_impl.train.tasks import Split, Task, make, split_of

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

Reader = Callable[[Path], list[Any]]


def written(folder: Path, *lines: str | bytes) -> Path:
    """A file of these lines."""
    file = folder / "data.jsonl"
    file.write_bytes(b"\n".join(x.encode() if isinstance(x, str) else x for x in lines))
    return file


def test_what_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, '{"prompt": "a", "answer": "b"}', "", '{"id": 3, "prompt": "ä\\n"}\r', "  ")
    assert read_prompts(file) == [Prompt("a", "b"), Prompt("ä\n", None)]
    file = written(
        tmp_path,
        '{"prompt": "a", "chosen": "b", "rejected": ""}',
        '{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2}',
    )
    assert read_preferences(file) == [Preference("a", "b", ""), Preference("a", "b", "c", 2.0)]
    file = written(tmp_path, b"\xef\xbb\xbf" + b'{"prompt": "a", "response": "b"}')
    assert read_sft(str(file)) == [Demonstration("a", "b")]
    assert read_prompts(written(tmp_path, '{"prompt": "a", "answer": null}')) == [Prompt("a")]


PROMPT, CHOSEN, MARGIN = (
    '{"prompt": "a"}',
    '{"prompt": "a", "chosen": "b"',
    '{"prompt": "a", "chosen": "b", "rejected": "c"',
)

MALFORMED: dict[str, tuple[Reader, str | bytes, str]] = {
    "not json": (
        read_prompts,
        "{prompt: a}",
        "expected a JSON object, got '{prompt: a}' (Expecting property name",
    ),
    "half a line": (
        read_prompts,
        '{"prompt": "a',
        'expected a JSON object, got \'{"prompt": "a\' (Unterminated',
    ),
    "a list": (read_prompts, '["a"]', "expected a JSON object, got '[\"a\"]'"),
    "a string": (read_prompts, '"a"', "expected a JSON object, got '\"a\"'"),
    "nesting": (read_prompts, "[" * 100_000, "expected a JSON object, got '[[["),
    "bytes": (read_prompts, b'{"prompt": "\xff"}', "expected UTF-8, got b'\\xff'"),
    "missing": (read_prompts, '{"answer": "a"}', "field 'prompt' is missing, expected a string"),
    "near": (
        read_prompts,
        '{"promt": "a"}',
        "field 'prompt' is missing, expected a string; there is 'promt'",
    ),
    "near optional": (
        read_prompts,
        '{"prompt": "a", "anwser": "b"}',
        "field 'answer' is missing; there is 'anwser'",
    ),
    "number": (read_prompts, '{"prompt": 3}', "field 'prompt' must be a string, got 3"),
    "null": (read_prompts, '{"prompt": null}', "field 'prompt' must be a string, got None"),
    "empty": (read_prompts, '{"prompt": ""}', "field 'prompt' must not be empty, got ''"),
    "list": (read_prompts, '{"prompt": "a", "answer": ["b"]}', "field 'answer' must be a string, got ['b']"),
    "twice": (
        read_prompts,
        '{"prompt": "a", "prompt": "b"}',
        "field 'prompt' is expected once, got it more than",
    ),
    "half a character": (
        read_prompts,
        '{"prompt": "\\ud800"}',
        "field 'prompt' must be text, got half of a char",
    ),
    "no rejected": (read_preferences, CHOSEN + "}", "field 'rejected' is missing, expected a string"),
    "rejected": (read_preferences, CHOSEN + ', "rejected": {}}', "field 'rejected' must be a string, got {}"),
    "margin": (
        read_preferences,
        MARGIN + ', "margin": "1"}',
        "field 'margin' must be a finite number, got '1'",
    ),
    "bool": (
        read_preferences,
        MARGIN + ', "margin": true}',
        "field 'margin' must be a finite number, got True",
    ),
    "nan": (read_preferences, MARGIN + ', "margin": NaN}', "field 'margin' must be a finite number, got nan"),
    "infinite": (
        read_preferences,
        MARGIN + ', "margin": 1e999}',
        "field 'margin' must be a finite number, got inf",
    ),
    "no response": (read_sft, PROMPT, "field 'response' is missing, expected a string"),
    "response": (
        read_sft,
        '{"prompt": "a", "response": false}',
        "field 'response' must be a string, got False",
    ),
}
GOOD: dict[Reader, str] = {
    read_prompts: PROMPT,
    read_preferences: MARGIN + "}",
    read_sft: '{"prompt": "a", "response": "b"}',
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_line_is_named(what: str, tmp_path: Path) -> None:
    """File, line and field, what came and what was expected; blank lines count."""
    read, line, message = MALFORMED[what]
    file = written(tmp_path, GOOD[read], "", line, GOOD[read])
    with pytest.raises(DataError, match=rf"^{re.escape(str(file))}, line 3: {re.escape(message)}"):
        read(file)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    for lines in ([], ["", "  "]):
        file = written(tmp_path, *lines)
        with pytest.raises(
            DataError, match=rf"^{re.escape(str(file))}: expected at least one line, got none"
        ):
            read_prompts(file)
    for missing in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(
            DataError, match=rf"^{re.escape(str(missing))}: expected a file of JSON lines, got"
        ):
            read_prompts(missing)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@examples(40)
@given(
    st.lists(st.builds(Preference, TEXT.filter(bool), TEXT, TEXT, st.floats(-9, 9)), min_size=1, max_size=4)
)
def test_what_was_written_is_read(pairs: list[Preference]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        write(file, pairs)
        assert read_preferences(file) == pairs


def test_prompts_without_answers_are_written(tmp_path: Path) -> None:
    given = [Prompt("a"), Prompt("b", "c")]
    write(tmp_path / "prompts.jsonl", given)
    assert read_prompts(tmp_path / "prompts.jsonl") == given


def sums() -> Task:
    """Sums of two digits."""
    return make(
        "chain_sum",
        {"chain_sum": {"min_terms": 2, "max_terms": 2, "max_digits": 1}},
        templates={"chain_sum": "{expression} ="},
    )


@pytest.mark.parametrize("rejected", ["other", "repeated"])
@pytest.mark.parametrize("split", ["train", "held-out"])
def test_pairs_from_a_task(rejected: Wrong, split: Split) -> None:
    task = sums()
    pairs = preference_pairs(task, 20, split=split, seed=4, rejected=rejected)
    problems = {p.prompt: p for p in task.problems(split, count=20, seed=4)}
    assert len(pairs) == 20
    for pair in pairs:
        assert split_of(pair.prompt) == split
        assert task.score(problems[pair.prompt], pair.chosen) == 1.0
        assert task.score(problems[pair.prompt], pair.rejected) < 1.0
        assert (pair.rejected == f"{pair.chosen} {pair.chosen}") == (rejected == "repeated")
    assert pairs == preference_pairs(task, 20, split=split, seed=4, rejected=rejected)
    assert pairs != preference_pairs(task, 20, split=split, seed=5, rejected=rejected)


def test_a_task_without_wrong_answers() -> None:
    with pytest.raises(ValueError, match=r"task must have wrong answers that are 'other', got none to"):
        preference_pairs(sums(), 1)


def test_margins_of_pairs_are_added_to_the_setting_s(tmp_path: Path) -> None:
    """The loss is -log σ of how far the chosen score is ahead, less both margins."""
    pairs = [Preference("ab", "c", "d", margin) for margin in (0.0, 0.5, -2.0)]
    trainer: Any = small_runs.trainer("reward-model", tmp_path, margin=0.25)
    torch.nn.init.normal_(trainer.critic.scorer.model.score.weight)
    rows = collate_pairs(pairs, trainer.tokenizer)
    chosen, rejected = trainer.critic.scores(rows.together()).chunk(2)
    ahead = (chosen - rejected).tolist()
    expected = [math.log1p(math.exp(0.25 + p.margin - x)) for p, x in zip(pairs, ahead, strict=True)]
    mean = torch.tensor(sum(expected) / 3, dtype=torch.float64)
    assert small_runs.same(trainer.loss(rows).detach(), mean)


def test_margins_are_not_for_dpo(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    write(file, [Preference(str(number), "c", "d", 0.5) for number in range(64)])
    settings = small_runs.settings("dpo", tmp_path)
    settings.problems = Problems(file=str(file))
    with pytest.raises(ValueError, match=r"problems.file must have no margin for dpo, got 0.5"):
        small_runs.begin("dpo", settings)
