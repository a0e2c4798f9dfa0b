"""From the output head to log-probabilities and losses: what the reference says of all the logits at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conformance.adapters.torch_impl import policy_loss
from conformance.cases import Case
from conformance.oracle import Permitted, permitted_by
from reference import logprobs as definition
from reference import numbers
from reference import policy_loss as loss_definition
from reference.numbers.formats import FORMATS
from tests.benchmarks.memory import peak
from torch_impl import linear, softmax
from torch_impl.linear import linear_logprobs, linear_objective
from torch_impl.logprobs import token_logprobs_and_entropy
from torch_impl.precision import wide_dtype

ROWS, LENGTH, FEATURES, VOCABULARY = 3, 5, 4, 11
PADDING = 2
TEMPERATURE = 0.5
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
HEAD: dict[str, Any] = {"temperature": TEMPERATURE, "vocabulary": VOCABULARY}
CLIPS: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.3, "aggregation": "token-mean"}


@pytest.fixture(params=[1, 30, 40, 60, 10**6], autouse=True)
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk for each position, for two, for three, so that a row has two, for a row, and one for all."""
    monkeypatch.setitem(linear.CHUNK, "cpu", request.param)
    monkeypatch.setitem(softmax.CHUNK, "cpu", request.param)


class Given:
    """Hidden states and an output head of small numbers, so that logits are exact in every dtype."""

    def __init__(self, dtype: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.form = FORMATS[dtype]
        self.hidden = rng.integers(-3, 4, (ROWS, LENGTH, FEATURES)).astype(float)
        self.weight = rng.integers(-4, 5, (VOCABULARY, FEATURES)) / 4.0
        self.tokens = rng.integers(0, VOCABULARY, (ROWS, LENGTH))
        self.upstream = self.form.round(rng.standard_normal((2, ROWS, LENGTH)))
        self.old = self.form.round(-np.abs(rng.standard_normal((ROWS, LENGTH))) * 3)
        self.advantages = self.form.round(rng.standard_normal((ROWS, LENGTH)))
        self.mask = rng.random((ROWS, LENGTH)) < 0.8
        padded = np.concatenate([self.weight, np.full((PADDING, FEATURES), np.nan)])
        self.leaves = [self.tensor(x).requires_grad_() for x in (self.hidden, padded)]

    def tensor(self, x: np.ndarray) -> Tensor:
        """As the backend gets it."""
        found = torch.from_numpy(np.array(x))
        return found.to(getattr(torch, self.form.name)) if found.is_floating_point() else found

    def permitted(self, formula: Any, **arguments: np.ndarray) -> Permitted:
        """What a formula of the logits, and of other arguments, may give."""
        given = {"logits": self.hidden @ self.weight.T, **arguments}
        options = {"temperature": TEMPERATURE}
        return permitted_by(Case("token_entropy", given, options, self.form.name, "output head"), formula)

    def through_the_head(self, slopes: Any) -> tuple[Any, Any]:
        """The gradients in hidden states and head that a gradient in the logits makes."""
        in_hidden = numbers.total(slopes[..., None] * self.weight, axis=2)
        flat, hidden = slopes.reshape(-1, VOCABULARY), self.hidden.reshape(-1, FEATURES)
        return in_hidden, numbers.total(flat[..., None] * hidden[:, None, :], axis=0)

    def call(self, **options: Any) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies."""
        return linear_logprobs(self.leaves[0], self.leaves[1], self.tensor(self.tokens), **HEAD, **options)


def holds(permitted: Permitted, got: Tensor) -> None:
    """Every number is decided, and permitted."""
    assert got.shape == permitted.balls.shape
    found = got.detach().double().numpy()
    assert all(permitted.distance(i, float(found[i])) <= 1.0 for i in np.ndindex(*got.shape))


@DTYPES
def test_log_probabilities_and_entropies(dtype: str) -> None:
    given = Given(dtype)
    logprobs, entropies = given.call()
    tokens = given.tokens
    holds(given.permitted(lambda x, **options: definition.token_logprobs(x, tokens, **options)), logprobs)
    holds(given.permitted(definition.token_entropy), entropies)


@DTYPES
def test_gradients(dtype: str) -> None:
    given = Given(dtype)
    upstream = [given.tensor(x) for x in given.upstream]
    found = torch.autograd.grad(given.call(), given.leaves, upstream)
    for number, got in enumerate((found[0], found[1][:VOCABULARY])):

        def gradient(x: Any, above: Any, other: Any, _number: int = number, **options: Any) -> Any:
            slopes = definition.token_logprobs_gradient(above, x, given.tokens, **options)
            slopes = slopes + definition.token_entropy_gradient(other, x, **options)
            return given.through_the_head(slopes)[_number]

        holds(given.permitted(gradient, above=given.upstream[0], other=given.upstream[1]), got)
    assert not found[1][VOCABULARY:].any()


@DTYPES
@pytest.mark.parametrize("whole_rows", [True, False])
def test_policy_loss_and_its_gradients(dtype: str, whole_rows: bool) -> None:
    """The loss in which every token counts as much, a chunk of rows or of positions at a time."""
    given = Given(dtype)
    old, advantages, mask = map(given.tensor, (given.old, given.advantages, given.mask))
    if not whole_rows:
        old, advantages, mask = (x.view(-1, 1) for x in (old, advantages, mask))

    def share(logprobs: Tensor, entropies: Tensor, rows: slice) -> Tensor:
        assert logprobs.shape == entropies.shape == (old[rows].shape if whole_rows else old[rows, 0].shape)
        of_rows = logprobs.view(-1, old.shape[1]).to(old.dtype), old[rows], advantages[rows], mask[rows]
        return policy_loss(*of_rows, **CLIPS).to(logprobs.dtype) * mask[rows].sum() / mask.sum()

    loss = linear_objective(
        given.leaves[0], given.leaves[1], given.tensor(given.tokens), share, whole_rows=whole_rows, **HEAD
    )
    found = torch.autograd.grad(loss, given.leaves, torch.tensor(-2.0, dtype=loss.dtype))
    others = {"old": given.old, "advantages": given.advantages}

    def value(x: Any, old: Any, advantages: Any, **options: Any) -> Any:
        logprobs = definition.token_logprobs(x, given.tokens, **options)
        return loss_definition.policy_loss(logprobs, old, advantages, given.mask, **CLIPS)

    assert loss.dtype == wide_dtype(given.leaves[0].dtype)
    holds(given.permitted(value, **others), loss)
    for number, got in enumerate((found[0], found[1][:VOCABULARY])):

        def gradient(
            x: Any, old: Any, advantages: Any, above: Any, _number: int = number, **options: Any
        ) -> Any:
            rows = definition.token_logprobs(x, given.tokens, **options), old, advantages, given.mask
            slopes = loss_definition.policy_loss_gradient(above, *rows, **CLIPS)
            slopes = definition.token_logprobs_gradient(slopes, x, given.tokens, **options)
            return given.through_the_head(slopes)[_number]

        holds(given.permitted(gradient, **others, above=np.array(-2.0)), got)


def test_only_what_is_wanted_gets_a_gradient() -> None:
    given = Given("float32")
    hidden, weight = given.leaves
    tokens = given.tensor(given.tokens)

    def found() -> list[Tensor]:
        total = linear_objective(hidden, weight, tokens, lambda _, entropies, __: entropies.sum(), **HEAD)
        for x in given.leaves:
            x.grad = None
        torch.autograd.backward(total + given.call()[0].sum())
        return [x.grad for x in given.leaves if x.grad is not None]

    both = found()
    for one, other in ((0, 1), (1, 0)):
        given.leaves[other].requires_grad_(False)
        [alone] = found()
        assert torch.equal(alone, both[one])
        assert alone.any()
        given.leaves[other].requires_grad_()


def test_without_gradient_nothing_is_kept() -> None:
    given = Given("float32")
    with torch.no_grad():
        tokens = given.tensor(given.tokens)
        total = linear_objective(given.leaves[0], given.leaves[1], tokens, lambda x, *_: x.sum(), **HEAD)
    assert not total.requires_grad


def test_the_gradient_is_taken_once() -> None:
    given = Given("float32")
    tokens = given.tensor(given.tokens)
    total = linear_objective(given.leaves[0], given.leaves[1], tokens, lambda x, *_: x.sum(), **HEAD)
    for found in (total, given.call()[0].sum()):
        (slope,) = torch.autograd.grad(found.square(), given.leaves[0], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            torch.autograd.backward(slope.sum())


def test_an_objective_of_entropies_is_that() -> None:
    """Sums in another order: a rounding for each position, of numbers below as many times the vocabulary."""
    room = (ROWS * LENGTH) ** 2 * VOCABULARY * 2.0**-53
    given, tokens = Given("float64"), torch.from_numpy(Given("float64").tokens).short()
    total = linear_objective(given.leaves[0], given.leaves[1], tokens, lambda _, h, __: h.sum(), **HEAD)
    entropies = given.call()[1].sum()
    assert abs(total - entropies) < room
    pairs = (torch.autograd.grad(x, given.leaves) for x in (total, entropies))
    for one, other in zip(*pairs, strict=True):
        assert (one - other).abs().max() < room
        assert one.any()


def test_an_objective_that_reads_nothing_has_no_gradient() -> None:
    given, one = Given("float32"), torch.ones((), requires_grad=True)
    tokens = given.tensor(given.tokens)
    total = linear_objective(given.leaves[0], given.leaves[1], tokens, lambda *_: one * 2, **HEAD)
    assert not any(found.any() for found in torch.autograd.grad(total, given.leaves))


@pytest.mark.parametrize("whole_rows", [True, False])
def test_rows_without_positions_add_nothing(whole_rows: bool) -> None:
    hidden, weight = torch.zeros(2, 0, 3, requires_grad=True), torch.zeros(4, 3)
    tokens = torch.zeros(2, 0, dtype=torch.int64)
    total = linear_objective(hidden, weight, tokens, lambda x, *_: x.sum(), whole_rows=whole_rows)
    assert total.item() == 0.0


def test_the_gradient_of_the_head_is_added_up_in_a_wide_dtype() -> None:
    """600 times 0.5: in bfloat16, 128 and 0.5 are 128."""
    hidden, tokens = torch.ones(1, 600, 1, dtype=torch.bfloat16), torch.zeros(1, 600, dtype=torch.int64)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    (found,) = torch.autograd.grad(linear_logprobs(hidden, weight, tokens)[0].sum(), weight)
    assert found.flatten().tolist() == [300.0, -300.0]


def test_everything_is_where_the_hidden_states_are() -> None:
    hidden, weight = (torch.zeros(shape, device="meta", requires_grad=True) for shape in ((2, 3, 4), (5, 4)))
    tokens = torch.zeros(2, 3, dtype=torch.int64, device="meta")
    total = linear_objective(hidden, weight, tokens, lambda x, *_: x.sum())
    for found in (total, *torch.autograd.grad(total, (hidden, weight))):
        assert found.device == hidden.device


def test_whole_rows_at_temperature_1_unless_something_else_is_asked_for() -> None:
    hidden, weight = torch.eye(6).view(2, 3, 6), torch.arange(24.0).view(4, 6)
    given = hidden, weight, torch.zeros(2, 3, dtype=torch.int64)
    widths = set()

    def objective(logprobs: Tensor, *_: Any) -> Tensor:
        widths.add(logprobs.shape[1:])
        return logprobs.sum()

    assert linear_objective(*given, objective) == linear_objective(*given, objective, temperature=1.0)
    assert torch.equal(linear_logprobs(*given)[0], linear_logprobs(*given, temperature=1.0)[0])
    assert widths == {(3,)}


def test_bad_arguments() -> None:
    given = Given("float32")
    hidden, weight = given.leaves
    tokens = given.tensor(given.tokens)
    with pytest.raises(ValueError, match=r"weight must have .*shape"):
        linear_logprobs(hidden, weight[:, 1:], tokens)
    with pytest.raises(
        ValueError, match=r"weight must have the dtype of hidden, torch.float32, got torch.float64"
    ):
        linear_logprobs(hidden, weight.double(), tokens)
    wrong: dict[str, Callable[[], Any]] = {
        "hidden": lambda: linear_logprobs(hidden[0], weight, tokens),
        "tokens": lambda: linear_logprobs(hidden, weight, tokens.float()),
        "temperature": lambda: linear_logprobs(hidden, weight, tokens, temperature=0.0),
        "vocabulary": lambda: linear_logprobs(hidden, weight, tokens, vocabulary=0),
    }
    for named, call in wrong.items():
        with pytest.raises(ValueError, match=rf"^{named}\b.* must "):
            call()
    assert not linear_logprobs(hidden, weight, torch.zeros_like(tokens), vocabulary=1)[0].any()
    whole = torch.zeros_like(weight)
    every = linear_logprobs(hidden, whole, tokens, vocabulary=len(whole))[0]
    assert torch.equal(every, linear_logprobs(hidden, whole, tokens)[0])
    with pytest.raises(ValueError, match=rf"vocabulary must be at most {VOCABULARY + PADDING}"):
        linear_logprobs(hidden, weight, tokens, vocabulary=100)
    with pytest.raises(ValueError, match="objective must return a scalar"):
        linear_objective(hidden, weight, tokens, lambda x, *_: x)


@pytest.mark.parametrize("chunks", [10**6], indirect=True)
def test_memory_does_not_grow_with_the_number_of_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what goes in and comes out; the logits alone would be 8 MB for the more positions."""
    for module in (linear, softmax):
        monkeypatch.setitem(module.CHUNK, "cpu", 2**16)
    few, many = (_beyond(positions) for positions in (512, 2048))
    assert many - few <= 2048 * 4 * 16  # a few numbers a position
    few, many = (_beyond_logits(positions) for positions in (512, 2048))
    assert many - few <= 2048 * 4 * 16


def _beyond(positions: int) -> int:
    hidden = torch.randn(1, positions, 8, requires_grad=True)
    weight = torch.randn(1000, 8, requires_grad=True)
    tokens = torch.zeros(1, positions, dtype=torch.int64)

    def call() -> object:
        logprobs, entropies = linear_logprobs(hidden, weight, tokens)
        return torch.autograd.grad(logprobs.sum() + entropies.sum(), (hidden, weight))

    return peak(call) - hidden.nbytes - weight.nbytes


def _beyond_logits(positions: int) -> int:
    logits = torch.randn(1, positions, 1000, requires_grad=True)
    tokens = torch.zeros(1, positions, dtype=torch.int64)

    def call() -> object:
        logprobs, entropies = token_logprobs_and_entropy(logits, tokens)
        return torch.autograd.grad(logprobs.sum() + entropies.sum(), logits)

    return peak(call) - logits.nbytes


def test_narrow_numbers_may_be_answered_in_a_wide_dtype() -> None:
    """Log-probabilities and entropies as of the same numbers in float32, and gradients as without that."""
    narrow, wide = Given("bfloat16"), Given("float32")
    found, expected, rounded = narrow.call(dtype=torch.float32), wide.call(), narrow.call()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not torch.equal(found[0], rounded[0])
    upstream = [narrow.tensor(x) for x in narrow.upstream]
    slopes = torch.autograd.grad(rounded, narrow.leaves, upstream)
    of_wide = torch.autograd.grad(found, narrow.leaves, [x.float() for x in upstream])
    assert all(torch.equal(one, other) for one, other in zip(of_wide, slopes, strict=True))


def test_autocast_does_not_reach_the_products() -> None:
    given = Given("float32")
    expected = given.call()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = given.call()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
