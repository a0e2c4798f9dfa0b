"""The PyTorch implementation as a backend."""

from importlib.metadata import version

from torch_impl.gae import discounted_returns, gae, lambda_returns, n_step_advantages, td_errors, whiten
from torch_impl.group import group_advantages, grpo_loss, rloo_advantages
from torch_impl.importance_sampling import (
    effective_sample_size,
    importance_ratio,
    importance_sampling_mean,
    sequence_importance_ratio,
    truncated_importance_weights,
)
from torch_impl.kl import adaptive_kl_coef, kl_divergence, kl_estimate, proportional_kl_coef
from torch_impl.logprobs import token_entropy, token_logprobs
from torch_impl.policy_loss import aggregate, kl_penalty_loss, policy_loss, policy_metrics
from torch_impl.preference import dpo_loss, implicit_rewards, sequence_logprobs
from torch_impl.reward import reward_model_loss, shaped_rewards
from torch_impl.training import train_step
from torch_impl.trust_region import backtracking_line_search, conjugate_gradient, trust_region_step
from torch_impl.value_loss import value_loss

__all__ = [
    "adaptive_kl_coef",
    "aggregate",
    "backtracking_line_search",
    "conjugate_gradient",
    "discounted_returns",
    "dpo_loss",
    "effective_sample_size",
    "gae",
    "group_advantages",
    "grpo_loss",
    "implicit_rewards",
    "importance_ratio",
    "importance_sampling_mean",
    "kl_divergence",
    "kl_estimate",
    "kl_penalty_loss",
    "lambda_returns",
    "n_step_advantages",
    "policy_loss",
    "policy_metrics",
    "proportional_kl_coef",
    "reward_model_loss",
    "rloo_advantages",
    "sequence_importance_ratio",
    "sequence_logprobs",
    "shaped_rewards",
    "td_errors",
    "token_entropy",
    "token_logprobs",
    "train_step",
    "truncated_importance_weights",
    "trust_region_step",
    "value_loss",
    "whiten",
]

array_library = "torch"
name = f"torch_impl (torch {version('torch').partition('+')[0]})"
