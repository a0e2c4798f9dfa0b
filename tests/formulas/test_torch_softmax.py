"""What the softmax of logits promises in PyTorch beyond the protocol."""

import math
from typing import Any

import pytest
import torch

from torch_impl import softmax
from torch_impl.logprobs import token_entropy, token_logprobs, token_logprobs_and_entropy

LOGITS = torch.tensor([[[0.5, -1.0, 2.0], [0.0, -torch.inf, 1.0]]])
TOKENS = torch.tensor([[2, 0]])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}], ids=str)
def test_both_at_once_are_what_each_is_alone(options: dict[str, float]) -> None:
    """Bit by bit, and so are their gradients."""
    logits = LOGITS.clone().requires_grad_()
    found = token_logprobs_and_entropy(logits, TOKENS, **options)
    alone = token_logprobs(logits, TOKENS, **options), token_entropy(logits, **options)
    for one, other in zip(found, alone, strict=True):
        assert torch.equal(one, other)
        slopes = (torch.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (one, other))
        assert torch.equal(*slopes)


def test_a_temperature_that_is_not_given_is_1() -> None:
    for operation, given in (
        (token_logprobs, (LOGITS, TOKENS)),
        (token_entropy, (LOGITS,)),
        (token_logprobs_and_entropy, (LOGITS, TOKENS)),
    ):
        plainly: Any = operation
        found, expected = plainly(*given), plainly(*given, temperature=1.0)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("expanded", [(2, 1), (1, 3), (2, 3)], ids=str)
def test_logits_may_be_the_same_ones_again(expanded: tuple[int, int]) -> None:
    """Expanded along rows, positions or both: as if they were written out."""
    few = torch.randn((3 - expanded[0], 4 - expanded[1], 5), generator=torch.Generator().manual_seed(0))
    logits, tokens = few.expand(2, 3, 5), torch.tensor([[0, 1, 2], [3, 4, 0]])
    found, expected = (token_logprobs_and_entropy(x, tokens) for x in (logits, logits.contiguous()))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_positions_of_a_matrix_may_lie_in_columns() -> None:
    """Even odds over 1, 2, 3 and 4 of five tokens: sums of ones, which nobody rounds."""
    columns = torch.where(torch.arange(5)[:, None] <= torch.arange(4), 0.0, -torch.inf)
    found, expected = (
        softmax.statistics(x, torch.arange(4), 1.0) for x in (columns.T, columns.T.contiguous())
    )
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_statistics_that_were_not_asked_for() -> None:
    """As its description has it: log Σ exp, with the other sign in the place of log p."""
    logits = LOGITS[0]
    logprobs, _, _, totals = softmax.statistics(logits, None, 1.0)
    assert torch.equal(logprobs, -totals)
    _, entropies, _, totals = softmax.statistics(logits, TOKENS[0], 1.0, entropy=False)
    assert torch.equal(entropies, totals)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_tokens_are_integers_of_any_width(dtype: torch.dtype) -> None:
    assert torch.equal(token_logprobs(LOGITS, TOKENS.to(dtype)), token_logprobs(LOGITS, TOKENS))


@pytest.mark.parametrize(
    ("tokens", "temperature", "named"),
    [(TOKENS, 0.0, "temperature"), (TOKENS.float(), 1.0, "tokens"), (TOKENS.T, 1.0, "tokens")],
)
def test_bad_arguments_of_both_at_once(tokens: torch.Tensor, temperature: float, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}\b.* must "):
        token_logprobs_and_entropy(LOGITS, tokens, temperature=temperature)


def test_the_slope_of_an_entropy_in_a_token_of_hardly_any_probability() -> None:
    """p = e⁻⁶⁰⁰ is a number of float64's: dH/dz = -p (log p + H), and H = p (1 + 600) to first order.

    Both exponentials are off by 8 roundoffs at most, as the suite allows, and four operations by one each.
    """
    logits = torch.tensor([[[0.0, -600.0]]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(token_entropy(logits).sum(), logits)
    expected = 600.0 * math.exp(-600.0)
    assert abs(slope[0, 0, 1].item() - expected) <= 20 * 2.0**-53 * expected
