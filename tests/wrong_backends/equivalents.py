"""Edits that look like mistakes and are none: each with the proof that its formula is the same."""

from tests.wrong_backends.edits import Edit

EQUIVALENT = (
    (
        Edit(
            "grpo_loss",
            "the gradient of a sequence for its tokens",
            'if level == "sequence"',
            'if level != "token"',
            base="torch_group",
        ),
        "A row has one advantage A and, in each aggregation, one weight w for its N active tokens. Of its "
        "ratio s, each gets s/N · Σ wA = swA at the level of the sequence, and swA at that of its tokens.",
    ),
)
"""The edit, and why it changes nothing."""
