"""Wrong backends of the chapter `kl`."""

from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = ()
