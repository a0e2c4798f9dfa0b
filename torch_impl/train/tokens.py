"""Text to tokens and back: bytes, characters, or the tokenizer of a folder. Nothing is fetched."""

from pathlib import Path
from typing import Any, Protocol

BYTES = 256


class Tokenizer(Protocol):
    """What trainers and engines ask of a tokenizer."""

    name: str
    """What :func:`make` makes it from again."""
    pad_id: int
    """Stands where there is no token; masks say where that is, so that it may be a token too."""
    eos_id: int
    """Ends a response, and is chosen by the policy like any other token."""
    vocab_size: int
    """Ids are 0 ... vocab_size - 1: how many rows a model's embedding needs."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, and no others: neither a beginning nor an end is marked."""

    def encode_prompt(self, text: str) -> list[int]:
        """Tokens of a prompt, with what the model expects before them."""

    def decode(self, ids: list[int]) -> str:
        """The text of some tokens; special ones have none."""


class ByteTokenizer:
    """Each byte of UTF-8 is a token."""

    name = "bytes"
    pad_id = BYTES
    eos_id = BYTES + 1
    vocab_size = BYTES + 2

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode("utf-8"))

    def encode_prompt(self, text: str) -> list[int]:
        """As :meth:`encode`."""
        return self.encode(text)

    def decode(self, ids: list[int]) -> str:
        """The text of some bytes, with � where they are no UTF-8."""
        _check_ids(ids, self.vocab_size)
        return bytes(i for i in ids if i < BYTES).decode("utf-8", errors="replace")


class CharTokenizer:
    """Each character of an alphabet is a token; no others can be encoded."""

    def __init__(self, alphabet: str) -> None:
        if not alphabet:
            raise ValueError("alphabet must have at least one character, got ''")
        repeated = sorted({c for c in alphabet if alphabet.count(c) > 1})
        if repeated:
            raise ValueError(f"alphabet must have each character once, got {repeated[0]!r} more than once")
        self.name = f"chars:{alphabet}"
        self.alphabet = alphabet
        self.pad_id, self.eos_id = len(alphabet), len(alphabet) + 1
        self.vocab_size = len(alphabet) + 2
        self._ids = {c: i for i, c in enumerate(alphabet)}

    def encode(self, text: str) -> list[int]:
        """The place of each character in the alphabet."""
        for place, c in enumerate(text):
            if c not in self._ids:
                raise ValueError(f"text must be of the characters {self.alphabet!r}, got {c!r} at {place}")
        return [self._ids[c] for c in text]

    def encode_prompt(self, text: str) -> list[int]:
        """As :meth:`encode`."""
        return self.encode(text)

    def decode(self, ids: list[int]) -> str:
        """The characters."""
        _check_ids(ids, self.vocab_size)
        return "".join(self.alphabet[i] for i in ids if i < len(self.alphabet))


class FolderTokenizer:
    """The tokenizer that transformers loads from a folder; without a token for padding, EOS pads."""

    def __init__(self, folder: str | Path, *, chat: bool = False) -> None:
        from transformers import AutoTokenizer

        if not Path(folder).is_dir():
            known = "'bytes', 'chars:ALPHABET', 'chars:FILE' or a folder that transformers can load"
            raise ValueError(f"tokenizer must be {known}, got {str(folder)!r}")
        inner: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        if inner.eos_token_id is None:
            raise ValueError(
                f"tokenizer must have a token that ends a text (EOS), the one in {folder} has none"
            )
        if chat and not inner.chat_template:
            raise ValueError(f"chat needs a tokenizer with a chat template, the one in {folder} has none")
        self.name, self._inner, self._chat = str(folder), inner, chat
        self.eos_id = int(inner.eos_token_id)
        self.pad_id = self.eos_id if inner.pad_token_id is None else int(inner.pad_token_id)
        self.vocab_size = max(inner.get_vocab().values()) + 1

    def encode(self, text: str) -> list[int]:
        """Tokens, without special ones."""
        return list(self._inner.encode(text, add_special_tokens=False))

    def encode_prompt(self, text: str) -> list[int]:
        """With what the tokenizer puts before a text, or as what the user says in a chat."""
        if self._chat:
            said = [{"role": "user", "content": text}]
            text = self._inner.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
            return self.encode(text)
        ids = list(self._inner.encode(text))
        return ids[:-1] if ids and ids[-1] == self.eos_id else ids

    def decode(self, ids: list[int]) -> str:
        """The text, without special tokens."""
        return str(self._inner.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def load(folder: str | Path, *, chat: bool = False) -> Tokenizer:
    """Load the tokenizer of a folder. With `chat`, prompts go through its chat template."""
    return FolderTokenizer(folder, chat=chat)


def make(name: str, *, chat: bool = False) -> Tokenizer:
    """Make a tokenizer by name.

    =====================  =========================================================
    "bytes"                bytes of UTF-8
    "chars:ALPHABET"       the characters of the alphabet
    "chars:FILE"           the characters of a text file, line breaks at its end aside
    anything else          the folder of that name
    =====================  =========================================================

    Raises ValueError for what is none of these.
    """
    if name == "bytes":
        return ByteTokenizer()
    kind, _, rest = name.partition(":")
    if kind != "chars":
        return load(name, chat=chat)
    if _is_file(rest):
        rest = "".join(dict.fromkeys(Path(rest).read_text(encoding="utf-8").rstrip("\n")))
    return CharTokenizer(rest)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # no name that a file could have
        return False


def _check_ids(ids: list[int], vocab_size: int) -> None:
    for place, i in enumerate(ids):
        if not 0 <= i < vocab_size:
            raise ValueError(f"ids must be 0 ... {vocab_size - 1}, got {i} at {place}")
