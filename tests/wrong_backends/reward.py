"""Wrong backends of the chapter `reward`."""

from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = ()
