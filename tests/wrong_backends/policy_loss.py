"""Wrong backends of the chapter `policy_loss`."""

from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = ()
