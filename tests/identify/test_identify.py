"""`rlspec identify` on backends: what they follow is told, and what nobody follows is said to be unknown."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from conformance.backend import Backend
from conformance.commands import main
from conformance.identification_report import as_text
from conformance.identify import Identification, identify
from conformance.operations import OPERATIONS

HERE = Path(__file__).parent
GUIDE = (HERE.parents[1] / "docs" / "hold-a-backend.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"\$ rlspec identify (?P<words>.+)\n(?P<output>(?:.*\n)+?)```")

FIRST = {
    "td_errors": {"masked": "the mask ignored", "bootstrap": "bootstrapping from the value given"},
    "gae": {"masked": "zero", "bootstrap": "bootstrapping from 0", "gives": "raw advantages"},
    "lambda_returns": {"lam": "0.95", "gives": "advantages plus values"},
    "discounted_returns": {"masked": "reset to 0 at masked positions"},
    "whiten": {
        "ddof": "0, whatever is asked",
        "eps": "1e-05",
        "place": "ε added to the deviation, outside the root",
        "scope": "statistics of the whole batch",
    },
    "importance_ratio": {"log_ratio_clip": "none"},
    "sequence_importance_ratio": {"statistic": "their product"},
    "truncated_importance_weights": {"mode": "truncate", "overflow": "an overflow counts as 0"},
    "effective_sample_size": {"as_": "a share of the samples"},
    "kl_estimate": {"estimator": "k3", "value_clip": "10"},
    "adaptive_kl_coef": {"factor": "by a factor of 1.5", "band": "outside [target/2, 2 target]"},
    "proportional_kl_coef": {"clip": "the error not clipped"},
    "token_logprobs": {"use": "the temperature multiplies the logits"},
    "token_entropy": {"temperature": "1", "impossible": "a logit of -∞ gives NaN"},
    "aggregate": {"empty_rows": "drop", "nothing": "NaN where nothing is active"},
    "policy_loss": {
        "signs": "a dual clip for both signs of A",
        "log_ratio_clip": "none",
        "aggregation": "seq-mean-token-mean",
        "empty_rows": "count",
        "weights": "rollout weights ignored",
    },
    "policy_metrics": {
        "estimate": "approx_kl is k3",
        "fraction": "clip_fraction counts tokens outside the bounds",
    },
    "value_loss": {
        "factor": "the squared error, without the half",
        "bound": "the clipped error alone",
        "nothing": "0 where nothing is active",
    },
    "reward_model_loss": {"sign": "the margin added"},
    "shaped_rewards": {"place": "the score on the last column", "estimator": "k1"},
    "sequence_logprobs": {"average": "True", "empty": "NaN as the mean of a row without tokens"},
    "dpo_loss": {"label_smoothing": "0, whatever is asked", "target": "the target of IPO is 1/β"},
    "group_advantages": {"eps": "0.0001", "ddof": "1", "scale": "std", "single": "0 for a group of one"},
    "rloo_advantages": {"others": "the mean of the others", "single": "its reward for a group of one"},
    "conjugate_gradient": {"stop": "stops on the residual's squared norm"},
    "backtracking_line_search": {
        "improvement": "an improvement of at least 0",
        "bound": "a KL of at most 1.5 δ",
        "backtrack": "honoured (0.5, 0.8)",
    },
}

SECOND = {
    "gae": {
        "masked": "ignore",
        "bootstrap": "bootstrapping from the value given",
        "gives": "whitened advantages, ddof 1",
    },
    "whiten": {
        "scope": "statistics of each row",
        "place": "the variance at least ε",
        "eps": "1e-08",
        "ddof": "0",
        "shift_mean": "honoured (True, False)",
    },
    "discounted_returns": {"masked": "masked positions as steps of reward and value 0"},
    "importance_ratio": {"log_ratio_clip": "10", "sides": "clamped from above alone"},
    "sequence_importance_ratio": {
        "statistic": "the geometric mean of a row's ratios",
        "highest": "the exponent at most 10",
    },
    "truncated_importance_weights": {"mode": "mask", "clamp": "the log-ratio within ±20"},
    "importance_sampling_mean": {"self_normalized": "True, whatever is asked"},
    "kl_estimate": {"clamped": "k3 alone clamped", "value_clip": "10"},
    "kl_divergence": {"reversed_": "the reference on the left, π on the right"},
    "proportional_kl_coef": {"floor": "the coefficient at least 0"},
    "aggregate": {"mode": "token-mean (refused: seq-mean-token-sum, seq-mean-token-mean, "
    "seq-mean-token-sum-norm)"},
    "policy_loss": {
        "bound": "clip_low on both sides",
        "dual_clip": "3",
        "aggregation": "seq-mean-token-sum",
        "empty_rows": "drop",
        "weights": "rollout weights after the clips",
    },
    "value_loss": {"clip": "none, whatever is asked", "aggregation": "seq-mean-token-mean"},
    "group_advantages": {
        "scale": "the deviation of the batch",
        "eps": "honoured (1e-06, 0.0001, 1e-09, 0.5)",
        "single": "its reward for a group of one",
    },
    "rloo_advantages": {"single": "NaN for a group of one"},
    "grpo_loss": {"estimate": "k1 added", "log_ratio_clip": "none"},
    "kl_penalty_loss": {"sign": "the divergence subtracted", "clamp": "the log-ratio within ±20"},
    "reward_model_loss": {"margin": "0", "over": "the sum over pairs"},
    "shaped_rewards": {"place": "the score on every active token", "estimator": "k2"},
    "implicit_rewards": {"beta": "0.1", "reversed_": "reference over policy"},
    "dpo_loss": {"smoothing": "robust smoothing of labels", "reference": "the reference ignored"},
    "trust_region_step": {"damped": "damped in the direction alone"},
    "backtracking_line_search": {"backtrack": "0.8", "bound": "a KL below δ"},
}  # fmt: skip

THIRD = {
    "policy_loss": {
        "ratio_level": "sequence-token",
        "weights": "rollout weights in the ratio, before the clips",
    },
    "kl_estimate": {
        "estimator": "k3, whatever is asked",
        "through": "the gradient is k2's, whatever the value",
    },
    "token_entropy": {"through": "no gradient", "temperature": "honoured (1.0, 0.7, 2.0, 0.5)"},
    "discounted_returns": {"masked": "masked positions skipped"},
    "whiten": {
        "inverted": "shift_mean=True adds the mean back",
        "eps": "honoured (1e-08, 1e-05, 0.001, 1.0)",
    },
    "group_advantages": {
        "others": "mean and deviation of the other responses",
        "place": "ε added to the variance, inside the root",
        "single": "NaN for a group of one",
    },
    "value_loss": {
        "aggregation": "token-mean, whatever is asked",
        "nothing": "NaN where nothing is active",
        "bound": "the larger of the clipped and the unclipped error",
    },
    "effective_sample_size": {"cap": "weights cut down to 2"},
}

VERL = {
    "gae": {
        "masked": "skip (refused: zero)",
        "gives": "raw advantages",
        "bootstrap": "not told apart: bootstrapping from the value given; bootstrapping from 0",
    },
    "lambda_returns": {"gives": "advantages plus values"},
    "discounted_returns": {"masked": "masked positions skipped"},
    "whiten": {
        "ddof": "1 (refused: 0)",
        "eps": "1e-08 (refused: 1e-05, 0.001, 1.0)",
        "place": "ε added to the variance, inside the root",
        "shift_mean": "honoured (True, False)",
        "inverted": "shift_mean=False adds the mean back",
        "scope": "statistics of the whole batch",
    },
}

COUNTS = """
import numpy as np
array_library = "numpy"
def aggregate(x, mask):
    return np.asarray(np.where(mask, x, 0).sum() / max(mask.sum(), 1))
"""

FOLLOWED = {"first_library": FIRST, "second_library": SECOND, "third_library": THIRD}


STARTED: dict[str, Backend] = {}


def backend(name: str) -> Backend:
    if name not in STARTED:
        STARTED[name] = Backend(str(HERE / f"{name}.py") if name in FOLLOWED else name)
    return STARTED[name]


@cache
def identified(name: str, operation: str, dtype: str = "float32") -> Identification:
    return identify(backend(name), operation, dtype)


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    while STARTED:
        STARTED.popitem()[1].close()


def texts(found: Identification) -> dict[str, str]:
    return {finding.convention.name: finding.text for finding in found.findings}


@pytest.mark.parametrize(
    ("name", "operation"), [(name, operation) for name, table in FOLLOWED.items() for operation in table]
)
def test_what_a_library_follows(name: str, operation: str) -> None:
    found = identified(name, operation)
    expected = FOLLOWED[name][operation]
    assert {c: text for c, text in texts(found).items() if c in expected} == expected
    assert not found.misses


def test_every_operation_of_the_libraries_is_looked_at() -> None:
    odd = {
        "implicit_rewards",
        "rloo_advantages",
        "sequence_logprobs",
        "td_errors",
    }  # what the third library is there for
    for name, table in FOLLOWED.items():
        assert set(backend(name).provided) == set(table) | (odd if name == "third_library" else set())


def test_verl() -> None:
    pytest.importorskip("verl")
    for operation, expected in VERL.items():
        found = identified("verl", operation)
        assert {c: text for c, text in texts(found).items() if c in expected} == expected
        assert not found.misses
    assert [trait.text for trait in identified("verl", "whiten").traits] == [
        "numbers at masked positions do not matter, NaN included",
        "numbers other than 0 at masked positions",
    ]
    assert "a NaN at a masked position spreads" in [t.text for t in identified("verl", "gae").traits]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ["torch_impl", "reference"])
def test_our_own_follow_the_clauses(name: str, operation: str) -> None:
    found = identified(name, operation, "float64")
    assert found.known
    assert not found.misses
    for finding in found.findings:
        if finding.convention.name in OPERATIONS[operation].options:
            assert finding.text.startswith("honoured (")
        elif finding.convention.name == "through" and name == "reference":  # it offers no gradients
            assert len(finding.choices) == len(finding.convention.choices)
        else:
            assert finding.choices == (next(iter(finding.convention.choices)),)


def test_what_nobody_follows_is_unknown() -> None:
    found = identified("third_library", "implicit_rewards")
    assert not found.known
    assert not found.findings
    text = as_text([found], backend("third_library"))
    assert f"unknown: none of {found.tried} combinations gives these answers" in text
    assert "print(backend.implicit_rewards(asarray(policy_logprobs), asarray(ref_logprobs), beta=0.1)" in text
    assert "nearest  implicit_rewards as its clauses have it, which gives" in text


def test_a_special_case_that_nobody_has_leaves_the_rest_known() -> None:
    found = identified("third_library", "rloo_advantages")
    assert found.known
    assert texts(found)["others"] == "the mean of the whole group"
    [miss] = found.misses
    assert miss.answer.call.observation.name == "groups of one"
    assert "got      result[1] = 7.0" in as_text([found], backend("third_library"))


def test_an_operation_that_never_answers() -> None:
    found = identified("third_library", "sequence_logprobs")
    assert not found.known
    assert "this never answers" in found.failure
    assert "no answers from sequence_logprobs" in as_text([found], backend("third_library"))


def test_an_operation_that_ends_its_process_ends_alone() -> None:
    found = identified("third_library", "td_errors")
    assert not found.known
    assert "killed its process (exit status 3" in found.failure
    assert identify(backend("third_library"), "effective_sample_size", "float32").known


@pytest.mark.parametrize(
    ("name", "operation", "text"),
    [
        ("first_library", "td_errors", "numbers at masked positions change the answers"),
        ("first_library", "shaped_rewards", "numbers other than 0 at masked positions"),
        ("second_library", "whiten", "0 at masked positions"),
        ("third_library", "discounted_returns", "a NaN at a masked position spreads"),
        ("third_library", "group_advantages", "a gradient flows through"),
        ("torch_impl", "group_advantages", "a constant: no gradient flows through"),
    ],
)
def test_traits(name: str, operation: str, text: str) -> None:
    assert text in [trait.text for trait in identified(name, operation).traits]


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", str(HERE / "first_library.py"), "rloo_advantages", "group_advantages"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    title, _, header, _, first, *rows = out.splitlines()
    assert title == "first library, from its answers in float32 (cpu)"
    assert re.split(r" {2,}", header.strip()) == ["operation", "what it follows", "clause"]
    assert re.split(r" {2,}", first.strip()) == ["group_advantages", "scale: std", "grpo.advantage"]
    assert "its reward for a group of one" in rows[-1]


def test_command_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "identify",
        str(HERE / "third_library.py"),
        "value_loss",
        "implicit_rewards",
        "sequence_logprobs",
    ]
    assert main([*words, "--json", "--dtype", "float64"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["backend"], found["dtype"], found["device"]) == ("third library", "float64", "cpu")
    assert "gae" in found["not provided"]
    loss = found["operations"]["value_loss"]
    [aggregation] = [c for c in loss["conventions"] if c["convention"] == "aggregation"]
    assert aggregation["choices"] == ["token-mean"]
    assert aggregation["clause"] == "ppo.aggregation"
    assert len(aggregation["asked"]) > 1
    unknown = found["operations"]["implicit_rewards"]
    assert (unknown["known"], unknown["conventions"]) == (False, [])
    assert unknown["misses"][0]["observation"] == "plain responses"
    assert found["operations"]["sequence_logprobs"]["failure"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.py"], "rlspec: backend nowhere.py: there is no file nowhere.py\n"),
        ([str(HERE / "first_library.py"), "gea"], "rlspec: there is no operation gea; near: gae\n"),
        (
            [str(HERE / "first_library.py"), "x"],
            "rlspec: there is no operation x; the operations are td_errors, ",
        ),
        ([str(HERE)], f"rlspec: backend {HERE}: it is a folder; expected a FILE.py, a package.module, "),
        ([str(HERE / "test_identify.pyc")], "it is no name of a file or module; expected a FILE.py, "),
        ([str(HERE.parents[1] / "README.md")], "it is a file, but no FILE.py; expected a FILE.py, "),
        (["./nowhere"], "it is no name of a file or module; expected a FILE.py, "),
        ([str(HERE / "first_library.py"), "kl_divergence"], "does not provide kl_divergence\n"),
        ([str(HERE / "first_library.py"), "--device", "tpu"], "its arrays cannot hold float32: "),
        ([str(HERE / "second_library.py"), "--dtype", "bfloat16"], "its arrays cannot hold bfloat16: "),
    ],
)
def test_command_that_cannot_be_run(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identify", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_options_may_stand_among_the_operations(capsys: pytest.CaptureFixture[str]) -> None:
    library = str(HERE / "first_library.py")
    words = ["rloo_advantages", "group_advantages", "--dtype", "float64"]
    assert main(["identify", library, *words]) == 0
    plainly = capsys.readouterr().out
    for mixed in (
        [library, "--dtype", "float64", *words[:2]],
        [library, words[0], "--dtype", "float64", words[1]],
        ["--dtype", "float64", library, words[0], "--device", "cpu", words[1]],
    ):
        assert main(["identify", *mixed]) == 0
        assert capsys.readouterr().out == plainly


def test_an_unknown_option_is_none_of_the_operations(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["identify", str(HERE / "first_library.py"), "--dtypes", "whiten"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --dtypes" in capsys.readouterr().err


def test_another_dtype_is_named_where_answers_are_of_one_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A float32 sum over an integer count is a float64 in NumPy."""
    backend = tmp_path / "counts.py"
    backend.write_text(COUNTS, encoding="utf-8")
    assert main(["identify", str(backend), "aggregate"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "returned dtype float64 for inputs of dtype float32; try --dtype float64, in which it may" in told
    assert main(["identify", str(backend), "aggregate", "--dtype", "float64"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "aggregate mode: token-mean" in told
    assert "no answers" not in told


def test_the_guides_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = EXAMPLE.search(GUIDE)
    assert found is not None
    adapters = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE, re.DOTALL))
    for name, code in adapters.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["identify", *found["words"].split()]) == 0
    assert _trimmed(capsys.readouterr().out) == _trimmed(found["output"])


def _trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
