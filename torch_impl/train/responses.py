"""What trainers read off models: log-probabilities, values and scores of responses.

Shapes: B rows, P positions of prompts, padded on the left, T of responses, padded on the right; L = P + T.
Neither how much a row is padded nor which rows are beside it matters to its numbers.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from torch_impl import checks
from torch_impl.linear import linear_logprobs
from torch_impl.logprobs import token_logprobs, token_logprobs_and_entropy
from torch_impl.precision import product_dtype, wide_dtype, widen
from torch_impl.train import building
from torch_impl.train.building import hidden_states, inner


def response_logprobs(
    policy: nn.Module,
    prompts: Tensor,
    prompt_mask: Tensor,
    responses: Tensor,
    mask: Tensor,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the tokens of responses, and entropies if they are asked for.

    Clauses: `ppo.token-logprobs`, `ppo.entropy`. Only positions of responses get logits, and not all at once
    where the output head is a plain product, whose factors are of autocast's dtype where that is on. A
    response is attended to up to its last active token, holes among them.

    Parameters
    ----------
    policy : module
        What :func:`load_policy` gives.
    prompts, prompt_mask : (B, P) int, (B, P) bool
        Padded on the left; at least one token a row.
    responses, mask : (B, T) int, (B, T) bool
        Padded on the right.
    temperature : float, above 0
        τ, by which the logits are divided: the one that was sampled at.
    entropy : bool
        Whether entropies are wanted too.

    Returns
    -------
    (B, T), and (B, T) or None
        In nats, in float32 or wider; where the mask is False they mean nothing.
    """
    ids, attention = _joined(prompts, prompt_mask, responses, mask)
    building.check_context(policy, ids.shape[1])
    base, start = inner(policy), prompts.shape[1] - 1
    ids, attention, vocabulary = ids[:, :-1], attention[:, :-1], building.token_count(policy)
    if exposes_head(policy):
        weight = base.get_output_embeddings().weight
        hidden, products = hidden_states(base.base_model, ids, attention)[:, start:], product_dtype(weight)
        logprobs, entropies = linear_logprobs(
            hidden.to(products),
            weight.to(products),
            responses,
            temperature=temperature,
            vocabulary=vocabulary,
            dtype=wide_dtype(weight.dtype),
        )
        return logprobs, entropies if entropy else None
    kept = {"logits_to_keep": responses.shape[1], "use_cache": False}
    logits = base(input_ids=ids, attention_mask=attention, position_ids=building.positions(attention), **kept)
    logits = widen(logits.logits[..., :vocabulary])
    if entropy:
        return token_logprobs_and_entropy(logits, responses, temperature=temperature)
    return token_logprobs(logits, responses, temperature=temperature), None


class ResponseLogprobs(nn.Module):
    """:func:`response_logprobs` as a module around a policy, for what hooks into modules: DDP, FSDP."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        exposes_head(policy)  # found out while the weights are still in one piece

    def forward(self, *tokens: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        """As :func:`response_logprobs`, without its first argument."""
        return response_logprobs(self.policy, *tokens, **options)


def response_values(
    scorer: nn.Module,
    prompts: Tensor,
    prompt_mask: Tensor,
    responses: Tensor,
    mask: Tensor,
    truncated: Tensor,
) -> tuple[Tensor, Tensor]:
    """Values of the states in which tokens were chosen, and of the state behind the last one.

    Parameters
    ----------
    scorer : module
        What :func:`load_scorer` gives, or DDP around it.
    prompts, prompt_mask, responses, mask
        As for :func:`response_logprobs`.
    truncated : (B,) bool
        Whether a response could have gone on: only then is something to come behind it.

    Returns
    -------
    (B, T), (B,)
        Values, in reward units, before token t is chosen; and the bootstrap values, without gradient, 0 where
        a response has ended.
    """
    checks.boolean("truncated", truncated, (len(mask),), like="mask")
    found, last = _scored(scorer, prompts, prompt_mask, responses, mask)
    start = prompts.shape[1] - 1
    return found[:, start:-1], torch.where(truncated, last.detach(), torch.zeros_like(last))


def response_scores(
    scorer: nn.Module, prompts: Tensor, prompt_mask: Tensor, responses: Tensor, mask: Tensor
) -> Tensor:
    """Scores (B,) of responses by a reward model: its number at the last active token.

    Clause: `rm.last-token`. Arguments as for :func:`response_values`; a response without tokens is scored
    where its prompt ends.
    """
    return _scored(scorer, prompts, prompt_mask, responses, mask)[1]


_EXPOSED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def exposes_head(policy: nn.Module) -> bool:
    """Whether the logits are just the last hidden states times the output head's weight.

    Some models scale or cap them, or have a bias or an adapter there. It is tried on two tokens, once for
    each model, and its logits have to be those to the last bit.
    """
    base = inner(policy)
    if base not in _EXPOSED:
        head = base.get_output_embeddings()
        _EXPOSED[base] = type(head) is nn.Linear and head.bias is None and _is_plain(base, head)
    return _EXPOSED[base]


@torch.no_grad()
def _is_plain(base: Any, head: nn.Linear) -> bool:
    ids = torch.zeros(1, 2, dtype=torch.long, device=head.weight.device)
    training = base.training
    base.eval()
    try:
        hidden = base.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return torch.equal(head(hidden), base(input_ids=ids, use_cache=False).logits)
    finally:
        base.train(training)


def _joined(prompts: Tensor, prompt_mask: Tensor, responses: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts and responses in one row, (B, L), and which of it is attended to."""
    checks.integers("prompts", prompts, (None, None))
    checks.boolean("prompt_mask", prompt_mask, tuple(prompts.shape), like="prompts")
    checks.integers("responses", responses, (len(prompts), None), like="prompts")
    checks.boolean("mask", mask, tuple(responses.shape), like="responses")
    reached = mask.flip(1).cummax(1).values.flip(1)
    return torch.cat([prompts, responses], 1), torch.cat([prompt_mask, reached], 1)


def _scored(
    scorer: nn.Module, prompts: Tensor, prompt_mask: Tensor, responses: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Numbers of all positions (B, L), and of the last token of each row (B,)."""
    ids, attention = _joined(prompts, prompt_mask, responses, mask)
    building.check_context(scorer, ids.shape[1])
    found: Tensor = scorer(ids, attention)
    lengths = attention[:, prompts.shape[1] :].sum(1)
    last = found.gather(1, (prompts.shape[1] - 1 + lengths)[:, None])[:, 0]
    return found, last
