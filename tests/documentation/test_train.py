"""docs/train.md: its commands and settings are accepted, its fields are those of files, its clauses exist."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from spec.registry import current
from torch_impl.train.__main__ import SETTINGS, settings_of
from torch_impl.train.data import Demonstration, Preference
from torch_impl.train.settings import flat

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
PLACES = [*sorted((ROOT / "torch_impl" / "train").glob("*.py")), ROOT / "docs" / "train.md"]
COMMANDS = re.findall(r"\$ .*(?:torch_impl\.train|dev\.py train) (\S+) (.*)", GUIDE)
[FILE] = re.findall(r"```toml\n# mine.toml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize(
    ("algorithm", "words"), [c for c in COMMANDS if c[0] in SETTINGS and "--help" not in c[1]]
)
def test_commands_are_accepted(
    algorithm: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(FILE, encoding="utf-8")
    settings = settings_of(algorithm, shlex.split(words))
    assert settings != SETTINGS[algorithm]()


def test_the_file_sets_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FILE, encoding="utf-8")
    found = flat(settings_of("grpo", ["--config", str(tmp_path / "mine.toml")]))
    names = {"model.path", "model.tokenizer", "model.lora_rank", "problems.names"}
    names |= {"grpo.clip_high", "grpo.scale", "grpo.ratio_level"}
    before = flat(SETTINGS["grpo"]())
    assert {name for name in found if found[name] != before[name]} == names - {"problems.names"}


def test_fields_are_those_of_files() -> None:
    rows = dict(re.findall(r"^\| (SFT|DPO)[^|]* \| (.+) \|$", GUIDE, re.MULTILINE))
    for name, kind in (("SFT", Demonstration), ("DPO", Preference)):
        told = re.findall(r"`(\w+)`", rows[name])
        required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
        assert told == required


@pytest.mark.parametrize("path", PLACES, ids=lambda path: path.name)
def test_every_clause_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(
        r"[Cc]lauses?:? `?((?:is|gae|trpo|ppo|kl|vf|rm|dpo|grpo|train|contract)\.[\w-]+)", text
    )
    named += re.findall(r"`((?:is|gae|trpo|ppo|kl|vf|rm|dpo|grpo|train|contract)\.[a-z-]+)`", text)
    modules = {f"train.{p.stem}" for p in PLACES}
    assert {slug for slug in named if slug not in modules} <= set(current().clauses)
