"""Wrong backends of the chapter `policy_loss`."""

from tests.wrong_backends import (
    policy_loss_aggregation,
    policy_loss_clip,
    policy_loss_logits,
    policy_loss_metrics,
    policy_loss_ratio,
)
from tests.wrong_backends.edits import Edit

EDITS: tuple[Edit, ...] = (
    *policy_loss_logits.EDITS,
    *policy_loss_aggregation.EDITS,
    *policy_loss_ratio.EDITS,
    *policy_loss_clip.EDITS,
    *policy_loss_metrics.EDITS,
)
