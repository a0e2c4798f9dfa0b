"""Models: from folders and from sizes, their log-probabilities, values and scores, adapters and heads."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny import (
    LETTERS,
    alone,
    coarse,
    foreign_folder,
    loud,
    only_rounded,
    policy,
    rows,
    settings,
)
from torch_impl.train import building, responses
from torch_impl.train.models import ScoreModel, load_policy, load_scorer, merged, save
from torch_impl.train.responses import (
    ResponseLogprobs,
    exposes_head,
    response_logprobs,
    response_scores,
    response_values,
)
from torch_impl.train.tokens import ByteTokenizer

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

PLAIN = {"llama": True, "gpt2": True, "cohere": False, "qwen3": True}
"""Whether logits are a plain product: those of one are scaled."""


@pytest.fixture(params=PLAIN)
def make(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(make: str, tmp_path: Path) -> nn.Module:
    """One of each make; those of others come from folders."""
    if make == "llama":
        return policy()
    return load_policy(settings(path=str(foreign_folder(tmp_path, make))), LETTERS)


def all_logits(model: nn.Module, ids: Tensor) -> Tensor:
    """The logits of one row without padding, as the model says."""
    found: Tensor = model(input_ids=ids, use_cache=False).logits
    return found[0]


def parameters(model: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = model.state_dict()
    return found


def test_what_log_probabilities_and_entropies_are(model: nn.Module, make: str) -> None:
    """Of a row alone, by the definition: the softmax of the logits of the token before, divided by τ."""
    assert exposes_head(model) == PLAIN[make]
    for row in range(4):
        batch = alone(rows(), row)
        ids = torch.cat([batch[0], batch[2]], 1)
        logits = all_logits(model, ids)[batch[0].shape[1] - 1 : -1] / 0.7
        logprobs = logits.log_softmax(1)
        expected = logprobs.gather(1, batch[2][0, :, None])[:, 0]
        got, entropies = response_logprobs(model, *batch, temperature=0.7, entropy=True)
        assert entropies is not None
        rough, rough_entropies = response_logprobs(coarse(model), *batch, temperature=0.7, entropy=True)
        assert rough_entropies is not None
        assert only_rounded(got[0], expected, rough[0])
        assert only_rounded(entropies[0], -(logprobs.exp() * logprobs).sum(1), rough_entropies[0])


@pytest.mark.parametrize("through_the_head", [True, False])
def test_padding_and_company_do_not_matter(
    model: nn.Module, through_the_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch with padding on both sides says of each row what the row alone says."""
    if not through_the_head:
        monkeypatch.setattr(responses, "exposes_head", lambda _: False)
    batch = rows()
    together, _ = response_logprobs(model, *batch)
    rough, _ = response_logprobs(coarse(model), *batch)
    for row in range(4):
        single, _ = response_logprobs(model, *alone(batch, row))
        kept = batch[3][row]
        assert only_rounded(together[row][kept], single[0], rough[row][kept])


def test_positions_that_count_padding_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the comparison above is worth: a model with places of its own, told the wrong ones."""
    model = load_policy(settings(path=str(foreign_folder(tmp_path, "gpt2"))), LETTERS)
    batch = rows()
    single, _ = response_logprobs(model, *alone(batch, 0))
    monkeypatch.setattr(building, "positions", lambda x: torch.arange(x.shape[1]).expand(x.shape))
    together, _ = response_logprobs(model, *batch)
    rough, _ = response_logprobs(coarse(model), *batch)
    kept = batch[3][0]
    assert not only_rounded(together[0][kept], single[0], rough[0][kept])


def test_what_is_under_padding_changes_no_bit(model: nn.Module) -> None:
    prompts, prompt_mask, answers, mask = rows()
    first, _ = response_logprobs(model, prompts, prompt_mask, answers, mask)
    prompts, answers = prompts.masked_fill(~prompt_mask, 3), answers.masked_fill(~mask, 5)
    second, _ = response_logprobs(model, prompts, prompt_mask, answers, mask)
    assert torch.equal(first[mask], second[mask])


def test_gradients_are_finite_and_those_of_the_rows_alone(model: nn.Module) -> None:
    """All rows at once, or one after the other: the same sum, up to what float32 is off by."""
    batch = rows()
    torch.autograd.backward(response_logprobs(model, *batch)[0][batch[3]].sum())
    together = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    rough = coarse(model)
    torch.autograd.backward(response_logprobs(rough, *batch)[0][batch[3]].sum())
    for row in range(4):
        torch.autograd.backward(response_logprobs(model, *alone(batch, row))[0].sum())
    for (name, p), q in zip(model.named_parameters(), rough.parameters(), strict=True):
        first = together[name]
        assert first is not None
        assert p.grad is not None
        assert q.grad is not None
        assert only_rounded(first, p.grad, q.grad), name


def test_holes_are_attended_to(model: nn.Module) -> None:
    """What a tool wrote into a response takes no part, but what follows was written after it."""
    batch = rows()
    full, _ = response_logprobs(model, *batch)
    mask = batch[3].clone()
    mask[0, 2:4] = False
    holed, _ = response_logprobs(model, *batch[:3], mask)
    assert torch.equal(full[mask], holed[mask])


def test_capped_logits_are_no_plain_product(tmp_path: Path) -> None:
    """In float32, since this model's attention takes masks to be that."""
    model = load_policy(settings(path=str(foreign_folder(tmp_path, "gemma2")), dtype="float32"), LETTERS)
    assert not exposes_head(model)
    ids, attention, answers, mask = rows()
    found, _ = response_logprobs(model, ids, attention, answers, mask)
    assert bool(torch.isfinite(found[mask]).all())


def test_a_module_around_a_policy_says_the_same() -> None:
    model, batch = policy(), rows()
    wrapped = ResponseLogprobs(model)
    assert torch.equal(
        wrapped(*batch, temperature=2.0)[0], response_logprobs(model, *batch, temperature=2.0)[0]
    )
    assert building.token_count(wrapped) == LETTERS.vocab_size


def test_a_seed_decides_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (parameters(load_policy(settings(), LETTERS, seed=s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("make", ["llama", "gpt2"], indirect=True)
def test_a_folder_gives_back_what_was_saved(model: nn.Module, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    save(model, folder)
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
    again = load_policy(settings(path=str(folder)), LETTERS)
    saved, found = parameters(model), parameters(again)
    assert saved.keys() == found.keys()
    assert all(torch.equal(saved[name], found[name]) for name in saved)


def test_dropout_is_off(tmp_path: Path) -> None:
    """GPT-2's config asks for it; a model in training mode says the same twice."""
    model = load_policy(settings(path=str(foreign_folder(tmp_path, "gpt2"))), LETTERS)
    assert model.training
    first, second = (response_logprobs(model, *rows())[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(dtype: str) -> None:
    model = load_policy(settings(dtype=dtype), LETTERS)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    logprobs, entropies = response_logprobs(model, *rows(), entropy=True)
    assert {logprobs.dtype, getattr(entropies, "dtype", None)} == {torch.float32}


@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_vocabulary_has_the_same_tokens(tmp_path: Path, tied: bool) -> None:
    model, batch = policy(tied=tied), rows()
    save(model, tmp_path / "narrow")
    padded = load_policy(settings(path=str(tmp_path / "narrow"), vocabulary_multiple=64), LETTERS)
    assert building.inner(padded).get_output_embeddings().weight.shape[0] == 64
    assert torch.equal(response_logprobs(padded, *batch)[0], response_logprobs(model, *batch)[0])
    save(padded, tmp_path / "wide")
    again = load_policy(settings(path=str(tmp_path / "wide")), LETTERS)
    assert building.token_count(again) == LETTERS.vocab_size
    torch.autograd.backward(response_logprobs(again, *batch)[0].sum())
    gradient = building.inner(again).get_output_embeddings().weight.grad
    assert not gradient[LETTERS.vocab_size :].any()
    assert gradient[: LETTERS.vocab_size].any()


def test_activation_checkpointing_keeps_less_and_says_the_same() -> None:
    kept: list[int] = []
    gradients = []
    for checkpointing in (False, True):
        model = loud(load_policy(settings(activation_checkpointing=checkpointing), LETTERS))
        sizes: list[int] = []

        def keep(x: Tensor, into: list[int] = sizes) -> Tensor:
            into.append(x.nbytes)
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            total = response_logprobs(model, *rows())[0].sum()
        torch.autograd.backward(total)
        kept.append(sum(sizes))
        gradients.append([p.grad for p in model.parameters()])
    assert kept[1] < kept[0]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


ADAPTED: dict[str, Any] = {"lora_rank": 2, "lora_targets": ["q_proj", "v_proj"]}


def stirred(model: nn.Module) -> nn.Module:
    """Adapters start as nothing: give all that is trained other numbers."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=draw, dtype=p.dtype))
    return model


def test_only_adapters_are_trained() -> None:
    model = stirred(policy(**ADAPTED))
    assert all(("lora_" in name) == p.requires_grad for name, p in model.named_parameters())
    torch.autograd.backward(response_logprobs(model, *rows())[0].sum())
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_adapters_of_a_half_precision_model_are_float32() -> None:
    """Small steps would be lost in bfloat16."""
    model = stirred(load_policy(settings(dtype="bfloat16", **ADAPTED), LETTERS))
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    torch.autograd.backward(response_logprobs(model, *rows())[0].sum())
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_adapters_begin_as_nothing() -> None:
    plain, adapted = load_policy(settings(), LETTERS), load_policy(settings(**ADAPTED), LETTERS)
    assert torch.equal(response_logprobs(plain, *rows())[0], response_logprobs(adapted, *rows())[0])


def test_adapters_come_back_from_a_folder_and_can_be_merged(tmp_path: Path) -> None:
    base = policy()
    save(base, tmp_path / "base")
    options = settings(path=str(tmp_path / "base"), **ADAPTED)
    model = stirred(load_policy(options, LETTERS))
    expected, _ = response_logprobs(model, *rows())
    save(model, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    options = settings(path=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"))
    again = load_policy(options, LETTERS)
    assert torch.equal(response_logprobs(again, *rows())[0], expected)
    assert any(p.requires_grad for p in again.parameters())
    one = merged(again)
    assert only_rounded(
        response_logprobs(one, *rows())[0], expected, response_logprobs(coarse(one), *rows())[0]
    )
    assert torch.equal(response_logprobs(again, *rows())[0], expected)


def test_an_adapted_head_is_no_plain_product() -> None:
    model = stirred(policy(lora_rank=2, lora_targets=["lm_head"]))
    assert not exposes_head(model)
    for row in range(4):
        batch = alone(rows(), row)
        logits = all_logits(model, torch.cat([batch[0], batch[2]], 1))[batch[0].shape[1] - 1 : -1]
        expected = logits.log_softmax(1).gather(1, batch[2][0, :, None])[:, 0]
        rough = response_logprobs(coarse(model), *batch)[0]
        assert only_rounded(response_logprobs(model, *batch)[0][0], expected, rough[0])


def scorer(**options: Any) -> ScoreModel:
    """A scorer that says something."""
    found = loud(load_scorer(settings(**options), LETTERS))
    assert isinstance(found, ScoreModel)
    return found


def number(model: nn.Module, tokens: Tensor) -> Tensor:
    """What a scorer says at the last of some tokens."""
    found: Tensor = model(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool))
    return found[0, -1]


def test_values_are_of_what_came_before_the_token() -> None:
    """The value of a token is that of everything before it; what follows the last one is the bootstrap's."""
    model, batch = scorer(), rows()
    truncated = torch.tensor([True, False, True, False])
    values, bootstrap = response_values(model, *batch, truncated)
    rough, _ = response_values(coarse(model), *batch, truncated)
    assert values.shape == batch[2].shape
    for row in range(4):
        prompt, _, answer, _ = (x[0] for x in alone(batch, row))
        expected = [number(model, torch.cat([prompt, answer[:t]])) for t in range(len(answer))]
        kept = batch[3][row]
        assert only_rounded(values[row][kept], torch.stack(expected), rough[row][kept])
        after = number(model, torch.cat([prompt, answer]))
        after_rough = number(coarse(model), torch.cat([prompt, answer]))
        if truncated[row]:
            assert only_rounded(bootstrap[row], after, after_rough)
        else:
            assert bootstrap[row] == 0.0
        assert only_rounded(response_scores(model, *batch)[row], after, after_rough)
    assert values.requires_grad
    assert not bootstrap.requires_grad


def test_a_new_head_says_nothing() -> None:
    model = load_scorer(settings(), LETTERS)
    assert not response_scores(model, *rows()).any()


@pytest.mark.parametrize("make", ["llama", "gpt2", "qwen3"], indirect=True)
def test_a_scorer_begins_as_the_policy(model: nn.Module, make: str) -> None:
    found = load_scorer(settings(), LETTERS, from_policy=model)
    policy_body, body = building.inner(model).base_model, building.inner(found).base_model
    assert parameters(policy_body).keys() == parameters(body).keys()
    assert all(torch.equal(x, parameters(body)[name]) for name, x in parameters(policy_body).items())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in found.parameters()}


def test_a_scorer_of_an_adapted_policy_has_its_adapters_merged() -> None:
    model = stirred(policy(**ADAPTED))
    found = load_scorer(settings(), LETTERS, from_policy=model)
    assert not any("lora_" in name for name, _ in found.named_parameters())
    one = building.inner(merged(model)).base_model
    body = parameters(building.inner(found).base_model)
    assert all(torch.equal(x, body[name]) for name, x in parameters(one).items())


def test_a_scorer_of_a_language_model_s_folder(tmp_path: Path) -> None:
    model = policy()
    save(model, tmp_path)
    found = load_scorer(settings(path=str(tmp_path)), LETTERS)
    assert not response_scores(found, *rows()).any()
    body = parameters(building.inner(found).base_model)
    assert all(torch.equal(x, body[name]) for name, x in parameters(building.inner(model).base_model).items())


@pytest.mark.parametrize("options", [{}, ADAPTED])
def test_a_saved_scorer_keeps_its_head(tmp_path: Path, options: dict[str, Any]) -> None:
    if options:
        save(policy(), tmp_path / "base")
        options = {**options, "path": str(tmp_path / "base")}
    model = load_scorer(settings(**options), LETTERS)
    stirred(model)
    save(model, tmp_path / "saved")
    found = {"path": str(tmp_path / "saved")}
    if options:
        found = {"path": str(tmp_path / "base"), "adapter": str(tmp_path / "saved")}
    again = load_scorer(settings(**found), LETTERS)
    assert torch.equal(response_scores(again, *rows()), response_scores(model, *rows()))
    assert response_scores(model, *rows()).all()


def test_an_adapted_scorer_trains_adapters_and_head() -> None:
    model = stirred(load_scorer(settings(**ADAPTED), LETTERS))
    torch.autograd.backward(response_scores(model, *rows()).sum())
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert all("lora_" in name or "score" in name for name in trained)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
    assert sum("score" in name for name in trained) == 1


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "layers": ({"layers": 0}, r"layers must be an integer of at least 1, got int 0"),
    "width": ({"width": 18, "heads": 4}, r"width must be an even multiple of heads, 4, got 18"),
    "dtype": ({"dtype": "int8"}, r"dtype must be one of 'float32', .*, got str 'int8'"),
    "path": ({"path": "meta/llama"}, r"path must be a folder with a config.json .*, got 'meta/llama'"),
    "adapter": (
        {"adapter": "some/lora"},
        r"adapter must be a folder with an adapter_config.json, got 'some/lora'",
    ),
    "rank": ({"lora_rank": -1}, r"lora_rank must be an integer of at least 0, got int -1"),
    "alpha": (
        {"lora_rank": 1, "lora_alpha": 0.0},
        r"lora_alpha must be a finite number above 0, got float 0.0",
    ),
    "multiple": (
        {"vocabulary_multiple": 0},
        r"vocabulary_multiple must be an integer of at least 1, got int 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_named(name: str) -> None:
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        load_policy(settings(**options), LETTERS)


def test_a_folder_with_too_few_tokens(tmp_path: Path) -> None:
    save(policy(), tmp_path)
    expected = f"tokenizer must have at most {LETTERS.vocab_size} tokens, as the model in {tmp_path}, got 258"
    with pytest.raises(ValueError, match=re.escape(expected)):
        load_policy(settings(path=str(tmp_path)), ByteTokenizer())


def test_a_folder_without_safetensors(tmp_path: Path) -> None:
    """Pickled weights are not read."""
    save(policy(), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"path must be a folder with .*safetensors, got"):
        load_policy(settings(path=str(tmp_path)), LETTERS)


def test_more_tokens_than_the_context() -> None:
    with pytest.raises(
        ValueError, match=r"prompts and responses must have at most 8 tokens together, got 13"
    ):
        response_logprobs(policy(context=8), *rows())


def test_bad_batches_are_named() -> None:
    prompts, prompt_mask, answers, mask = rows()
    model = policy()
    with pytest.raises(ValueError, match=r"prompt_mask must be boolean"):
        response_logprobs(model, prompts, prompt_mask.long(), answers, mask)
    with pytest.raises(
        ValueError, match=r"responses must have shape \(4, any\) to agree with prompts, got \(3, 6\)"
    ):
        response_logprobs(model, prompts, prompt_mask, answers[:3], mask)
    with pytest.raises(ValueError, match=r"truncated must have shape \(4\) to agree with mask"):
        response_values(scorer(), prompts, prompt_mask, answers, mask, torch.tensor([True]))
