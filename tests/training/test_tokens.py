"""Tokenizers: bytes, characters, and those of folders."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from torch_impl.train.tokens import ByteTokenizer, CharTokenizer, Tokenizer, load, make

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WORDS = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "one": 4, "two": 5, "three": 6}


def folder_with(folder: Path, ends: bool = False, **special: str) -> Path:
    """A tokenizer of words, which marks the beginning of a text, or its end too."""
    from tokenizers import Tokenizer as Words
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made: Any = PreTrainedTokenizerFast

    words = Words(models.WordLevel(WORDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single = "<s> $A </s>" if ends else "<s> $A"
    words.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    made(tokenizer_object=words, bos_token="<s>", **special).save_pretrained(folder)
    return folder


@examples(50)
@given(TEXTS)
def test_bytes_come_back(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids == list(text.encode())
    assert tokenizer.decode([*ids, tokenizer.eos_id, tokenizer.pad_id]) == text


@examples(50)
@given(st.text("abc 1", max_size=20))
def test_characters_come_back(text: str) -> None:
    tokenizer = CharTokenizer("cab 1")
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.encode_prompt(text) == ids
    assert tokenizer.decode([*ids, tokenizer.eos_id, tokenizer.pad_id]) == text


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharTokenizer("abc")])
def test_ids_are_all_different_and_below_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert {tokenizer.pad_id, tokenizer.eos_id} == {tokenizer.vocab_size - 2, tokenizer.vocab_size - 1}
    with pytest.raises(ValueError, match=rf"ids must be 0 ... {tokenizer.vocab_size - 1}, got .* at 1"):
        tokenizer.decode([0, tokenizer.vocab_size])
    with pytest.raises(ValueError, match=r"got -1 at 0"):
        tokenizer.decode([-1])


def test_broken_bytes_are_shown() -> None:
    assert ByteTokenizer().decode([0xE2, 0x82, ord("a")]) == "�a"


def test_an_unknown_character_is_named() -> None:
    with pytest.raises(ValueError, match=r"text must be of the characters 'abc', got 'ß' at 2"):
        CharTokenizer("abc").encode("abß")


@pytest.mark.parametrize(("alphabet", "got"), [("", "got ''"), ("aba", "got 'a' more than once")])
def test_alphabets_that_are_none(alphabet: str, got: str) -> None:
    with pytest.raises(ValueError, match=rf"alphabet must .*, {got}"):
        CharTokenizer(alphabet)


def test_a_name_makes_the_same_again(tmp_path: Path) -> None:
    file = tmp_path / "alphabet.txt"
    file.write_text("xyxy z\n", encoding="utf-8")
    folder = folder_with(tmp_path / "words", eos_token="</s>")
    for name in ("bytes", "chars:xy z", f"chars:{file}", str(folder)):
        one = make(name)
        other = make(one.name)
        assert one.encode("xy z") == other.encode("xy z")
        assert one.vocab_size == other.vocab_size
    assert make(f"chars:{file}").name == "chars:xy z"


@pytest.mark.parametrize("name", ["byte", "gpt2", "character:ab"])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=rf"tokenizer must be 'bytes', .* or a folder .*, got '{name}'"):
        make(name)


@pytest.mark.parametrize("ends", [False, True])
def test_of_a_folder(tmp_path: Path, ends: bool) -> None:
    tokenizer = load(folder_with(tmp_path, ends, eos_token="</s>", pad_token="<pad>"))
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.vocab_size) == (2, 1, 7)
    assert tokenizer.encode("one three") == [4, 6]
    assert tokenizer.encode_prompt("one three") == [0, 4, 6]
    assert tokenizer.decode([0, 4, 6, 1, 2]) == "one three"


def test_eos_pads_where_nothing_else_does(tmp_path: Path) -> None:
    assert load(folder_with(tmp_path, eos_token="</s>")).pad_id == 1


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer must have a token that ends a text"):
        load(folder_with(tmp_path / "endless"))
    with pytest.raises(ValueError, match=r"chat needs a tokenizer with a chat template"):
        load(folder_with(tmp_path / "mute", eos_token="</s>"), chat=True)


def test_chat(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}one {{ m.content }}{% endfor %}{% if add_generation_prompt %} two{% endif %}"
    )
    options: dict[str, Any] = {"chat_template": template}
    tokenizer = load(folder_with(tmp_path, eos_token="</s>", **options), chat=True)
    assert tokenizer.encode_prompt("three") == [4, 6, 5]
    assert tokenizer.encode("three") == [6]
