"""Numbers in a page's prose: each has to be one that the clause's derivations return.

Numbers are read from the free prose of a clause, not from code spans, formulas and fields. The integers
-2 to 2 count as words.
"""

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

NUMBER = re.compile(r"(?<![\w.^])[−-]?\d+(?:\.\d+|/\d+)?")


def unexplained(prose: str, numbers: Iterable[Any]) -> list[str]:
    """The numbers in a text that equal none of these, at the digits that are printed."""
    known = [float(number) for number in numbers]
    quoted = (match[0] for match in NUMBER.finditer(prose))
    return [
        text for text in quoted if not _is_word(text) and not any(_prints(text, number) for number in known)
    ]


def _is_word(text: str) -> bool:
    return text.lstrip("−-") in ("0", "1", "2")


def _prints(text: str, number: float) -> bool:
    """Whether a number, rounded to the decimals of the text, is what the text says."""
    quoted = Fraction(text.replace("−", "-"))
    decimals = text.partition(".")[2]
    room = 0.5 * 10.0 ** -len(decimals) if decimals else 0.0
    return abs(float(quoted) - number) <= room + 1e-12 * abs(number)
