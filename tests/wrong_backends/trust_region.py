"""Wrong backends of the chapter `trust_region`."""

from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = ()
