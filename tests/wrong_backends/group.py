"""Wrong backends of the chapter `group`."""

from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = ()
