"""Wrong backends of the chapter `policy_loss`."""

from tests.wrong_backends import policy_loss_logits
from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = policy_loss_logits.EDITS
