"""Wrong backends of the chapter `preference`."""

from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = ()
