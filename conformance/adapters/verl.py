"""verl as installed: its advantages, returns and whitening, called as the protocol names them."""

# Importing verl imports Ray and Transformers (a few seconds) and starts neither; it also sets RAY_*
# variables, adds a handler to the root logger and lets Ray replace sys.excepthook. Nothing here is compiled.

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from torch import Tensor
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import (
    compute_gae_advantage_return,
    compute_reinforce_plus_plus_outcome_advantage,
)
from verl.utils.torch_functional import masked_whiten

array_library = "torch"
name = f"verl {version('verl')}"
options = {
    "gae": {"masked": ("skip",)},
    "lambda_returns": {"masked": ("skip",)},
    "whiten": {"ddof": (1,), "eps": (1e-8,)},
}


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> Tensor:
    """Return the advantages before verl whitens them."""
    # verl returns (whitened advantages, advantages + values), both without gradients; only this difference
    # has the raw advantages.
    returns = lambda_returns(rewards, values, mask, bootstrap_value, gamma=gamma, lam=lam, masked=masked)
    return returns - values.detach()


def lambda_returns(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_value: Tensor,
    *,
    gamma: float,
    lam: float,
    masked: str = "skip",
) -> Tensor:
    """Return the returns that verl computes beside the advantages."""
    if masked != "skip":
        raise NotImplementedError(f"verl skips masked positions: masked must be 'skip', got {masked!r}")
    _refuse_bootstrap(bootstrap_value)
    with _whitening_refusal(mask):
        returns: Tensor = compute_gae_advantage_return(rewards, values, _token_mask(mask), gamma, lam)[1]
    return returns


def discounted_returns(rewards: Tensor, mask: Tensor, bootstrap_value: Tensor, *, gamma: float) -> Tensor:
    """Return the returns that REINFORCE++ computes before it whitens them into advantages."""
    _refuse_bootstrap(bootstrap_value)
    config = AlgoConfig(gamma=gamma)
    with _whitening_refusal(mask):
        computed = compute_reinforce_plus_plus_outcome_advantage(rewards, _token_mask(mask), config=config)
    returns: Tensor = computed[1]
    return returns


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8) -> Tensor:
    """Return the whitened values; verl has no choice of ddof or eps."""
    if (ddof, eps) != (1, 1e-8):
        raise NotImplementedError(f"verl whitens with ddof=1 and eps=1e-8, got ddof={ddof} and eps={eps}")
    with _whitening_refusal(mask):
        whitened: Tensor = masked_whiten(x, _token_mask(mask), shift_mean=shift_mean)
    return whitened


def _token_mask(mask: Tensor) -> Tensor:
    """Return the mask as verl's trainer has it: int64, because verl computes `1 - mask`."""
    return mask.long()


def _refuse_bootstrap(bootstrap_value: Tensor) -> None:
    """Raise NotImplementedError unless every bootstrap value is 0, the one that verl has built in."""
    if bool(bootstrap_value.any()):
        raise NotImplementedError("verl bootstraps with 0: it takes no bootstrap value")


@contextmanager
def _whitening_refusal(mask: Tensor) -> Iterator[None]:
    """Turn verl's refusal to whiten fewer than two active tokens into NotImplementedError."""
    try:
        yield
    except ValueError as refusal:
        if int(mask.sum()) >= 2:
            raise
        raise NotImplementedError("verl refuses to whiten fewer than two active tokens") from refusal
