"""Memory of a step: what is predicted is what PyTorch's allocator then holds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tiny import LETTERS, foreign_folder
from torch_impl.train.memory import (
    ACTIVATIONS,
    ALGORITHMS,
    KEPT,
    Batch,
    _tokens,
    activations,
    measured,
    predicted,
    table,
    total,
)
from torch_impl.train.models import ModelSettings, load_policy, load_scorer
from torch_impl.train.responses import response_logprobs
from torch_impl.train.tracing import Trace

pytestmark = pytest.mark.usefixtures("without_network", "one_thread")

BATCH = Batch(rows=3, prompt=5, response=4)


def model_settings(**options: Any) -> ModelSettings:
    return ModelSettings(
        **{"layers": 3, "heads": 4, "width": 32, "intermediate": 72, "context": 64, **options}
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "options", [{}, {"dtype": "bfloat16"}, {"lora_rank": 2}], ids=["float32", "bfloat16", "adapters"]
)
def test_what_is_kept_is_as_predicted_to_the_byte(algorithm: str, options: dict[str, Any]) -> None:
    """All but activations, whose peak has what operations need for a while on top."""
    expected = predicted(model_settings(**options), LETTERS, algorithm, BATCH)
    found = measured(model_settings(**options), LETTERS, algorithm, BATCH)
    assert expected.keys() == found.keys()
    assert {name: x for name, x in expected.items() if name != ACTIVATIONS} == {
        name: x for name, x in found.items() if name != ACTIVATIONS
    }
    assert found[ACTIVATIONS] > 0


@pytest.mark.parametrize("scorer", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("layers", [1, 3])
def test_activations_are_what_autograd_keeps(scorer: bool, dtype: str, layers: int) -> None:
    """Every number but tokens, which are integers, and weights, which are there anyway."""
    settings = model_settings(dtype=dtype, layers=layers)
    model = load_scorer(settings, LETTERS) if scorer else load_policy(settings, LETTERS)
    weights = {x.untyped_storage().data_ptr() for x in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}
    alive = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights and x.is_floating_point():
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(x)
        return x

    prompts, prompt_mask, answers, mask = _tokens(LETTERS, BATCH, "cpu")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        if scorer:
            model(torch.cat([prompts, answers], 1), torch.cat([prompt_mask, mask], 1))
        else:
            response_logprobs(model, prompts, prompt_mask, answers, mask)
    assert sum(kept.values()) == activations(model, BATCH, scorer=scorer)


def test_checkpointing_keeps_a_vector_a_block() -> None:
    """With many blocks: predicted and measured fall alike."""
    plain, checkpointed = (model_settings(layers=8, activation_checkpointing=x) for x in (False, True))
    batch = Batch(rows=4, prompt=16, response=16)
    for parts in (predicted, measured):
        before, after = (parts(s, LETTERS, "grpo", batch)[ACTIVATIONS] for s in (plain, checkpointed))
        assert after < before / 2
    vector = 4 * (16 + 16 - 1) * 32 * 4
    deeper = model_settings(layers=9, activation_checkpointing=True)
    expected = [predicted(s, LETTERS, "grpo", batch)[ACTIVATIONS] for s in (checkpointed, deeper)]
    assert expected[1] - expected[0] == vector


def test_what_ppo_has_more() -> None:
    """A critic: with AdamW four times its weights, and a number a tensor."""
    ppo, grpo = (predicted(model_settings(), LETTERS, algorithm, BATCH) for algorithm in ALGORITHMS)
    critic = {name: x for name, x in ppo.items() if name not in grpo}
    model = load_scorer(model_settings(), LETTERS)
    weights = sum(p.nbytes for p in model.parameters())
    steps = 4 * len(list(model.parameters()))
    buffers = sum(x.nbytes for x in model.buffers())
    assert sum(critic.values()) == 4 * weights + buffers + steps
    assert total(ppo) - total(grpo) - sum(critic.values()) == ppo[ACTIVATIONS] - grpo[ACTIVATIONS]


def test_the_table_says_how_much_less() -> None:
    """For a model of 7 · 10⁹ weights, of which none is made."""
    settings = ModelSettings(
        layers=32, heads=32, width=4096, intermediate=11008, context=4096, dtype="bfloat16"
    )
    text = table(settings, LETTERS, Batch(1, 64, 64), measure=False)
    assert "PPO, measured" not in text
    both = [predicted(settings, LETTERS, algorithm, Batch(1, 64, 64)) for algorithm in ALGORITHMS]
    for name, kept in KEPT.items():
        [line] = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
        assert f" {1 - total(both[1], kept) / total(both[0], kept):.0%} " in line
    assert f"{both[0]['policy: weights'] / 1e6:.3f}" in text


def test_the_table_has_what_was_measured_beside_it() -> None:
    text = table(model_settings(), LETTERS, BATCH)
    assert "| part " in text
    assert "PPO, predicted" in text
    assert "GRPO, measured" in text
    [line] = [line for line in text.splitlines() if line.startswith("| critic: optimiser ")]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert cells[0] == cells[1]
    assert cells[2] == cells[3] == "0.000"


def test_a_trace_counts_bytes() -> None:
    trace = Trace()
    with trace:
        with trace.phase("kept"):
            held = torch.zeros(1000) + torch.ones(1000)
        with trace.phase("given back"):
            del held
        with trace.phase("nothing"):
            pass
    assert (trace.phases["kept"].kept, trace.phases["kept"].peak) == (4000, 12000)
    assert (trace.phases["given back"].kept, trace.phases["given back"].peak) == (-4000, 0)
    assert (trace.phases["nothing"].kept, trace.phases["nothing"].peak) == (0, 0)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows must be an integer of at least 1, got int 0"):
        Batch(rows=0)
    with pytest.raises(ValueError, match=r"algorithm must be one of 'ppo', 'grpo', got str 'dpo'"):
        predicted(model_settings(), LETTERS, "dpo", BATCH)
    with pytest.raises(ValueError, match=r"algorithm must be one of 'ppo', 'grpo', got str 'dpo'"):
        measured(model_settings(), LETTERS, "dpo", BATCH)
    folder = foreign_folder(tmp_path, "gpt2")
    with pytest.raises(ValueError, match=r"path must hold a model of type 'llama' to predict .*, got 'gpt2'"):
        predicted(model_settings(path=str(folder)), LETTERS, "ppo", BATCH)
