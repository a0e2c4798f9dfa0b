"""Wrong backends of the chapter `value_loss`."""

from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = ()
