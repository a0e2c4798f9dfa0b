"""Wrong backends of the chapter `importance_sampling`."""

from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = ()
