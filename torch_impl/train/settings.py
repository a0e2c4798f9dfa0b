"""Settings of a run. Each field says its unit and the clause of the spec that it belongs to.

A preset is a TOML file of some of them, `presets/ALGORITHM-NAME.toml`.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from torch_impl import checks
from torch_impl.train.models import ModelSettings

Aggregation = Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]
Estimator = Literal["k1", "k2", "k3", "abs"]
PRESETS = Path(__file__).with_name("presets")


def preset(algorithm: str, name: str) -> Path:
    """The file of a preset. Raises ValueError for one that there is not."""
    path = PRESETS / f"{algorithm}-{name}.toml"
    if not path.is_file():
        known = sorted(p.stem.removeprefix(f"{algorithm}-") for p in PRESETS.glob(f"{algorithm}-*.toml"))
        raise ValueError(f"preset must be one of {', '.join(known)} for {algorithm}, got {name!r}")
    return path


@dataclass
class Problems:
    """What is learned: a task of reasoning-gym, or a file."""

    names: list[str] = field(default_factory=lambda: ["chain_sum"])
    """Tasks of reasoning-gym, in turns."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each task keywords of its config."""
    templates: dict[str, str] = field(default_factory=dict)
    """For each task how a prompt is made of {question} and of the problem's metadata."""
    file: str | None = None
    """JSONL in place of a task: prompts with answers, pairs, or prompts with responses."""
    held_out_file: str | None = None
    """JSONL of the same kind, which is not trained on. None: one line in four of the other file."""
    train: int = 2048
    """Problems that are made from a task to train on; a file has as many as it has. They are gone through in
    an order that is another one in each epoch."""
    held_out: int = 256
    """Problems that success is measured on, none of which is trained on."""

    def __post_init__(self) -> None:
        checks.integer("problems.train", self.train, at_least=1)
        checks.integer("problems.held_out", self.held_out, at_least=1)


@dataclass
class Optimizer:
    """AdamW, its learning rate over time, and what a gradient is made of."""

    learning_rate: float = 1e-4
    """After the warm-up. Clause: train.settings."""
    critic_learning_rate: float | None = None
    """Of the critic. None: the same."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """How slowly the means of gradients and of their squares forget. Clause: train.tabular-step-adam."""
    eps: float = 1e-8
    """Added to the root of the mean square."""
    weight_decay: float = 0.0
    """Share of a weight that is taken away a step, times the learning rate."""
    max_grad_norm: float | None = 1.0
    """Longer gradients are scaled down to this; null: none is. Clause: train.tabular-step-clipping."""
    warmup: int = 0
    """Steps in which the learning rate grows from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls from the warm-up to the end: not at all, or to 0."""
    micro_rows: int | None = None
    """Rows that are differentiated at once on a process. null: all. Clause: contract.partition."""
    autocast: Literal["none", "bfloat16"] = "none"
    """The dtype of the products of models; weights keep theirs, and losses are computed in float32."""

    def __post_init__(self) -> None:
        checks.positive("optimizer.learning_rate", self.learning_rate)
        checks.non_negative("optimizer.critic_learning_rate", self.critic_learning_rate or 0.0)
        checks.non_negative("optimizer.weight_decay", self.weight_decay)
        if self.max_grad_norm is not None:
            checks.positive("optimizer.max_grad_norm", self.max_grad_norm)
        if len(self.betas) != 2:
            raise ValueError(f"optimizer.betas must be two numbers, got {self.betas}")
        if self.micro_rows is not None:
            checks.integer("optimizer.micro_rows", self.micro_rows, at_least=1)
        checks.integer("optimizer.warmup", self.warmup, at_least=0)


@dataclass
class Run:
    """How long, how often, where."""

    steps: int = 100
    """Steps of the loop. Each draws its own data."""
    evaluate_every: int = 10
    """Steps from one measurement on held-out data to the next."""
    checkpoint_every: int = 10
    """Steps from one checkpoint to the next; the last step has one too."""
    checkpoints: int = 2
    """Checkpoints that are kept."""
    device: str = "auto"
    """"cpu", "cuda", or "auto": CUDA where there is one."""
    threads: int | None = None
    """Threads of the CPU. null: as many as PyTorch chooses."""
    shard: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: a copy of the weights a process (DDP), or a part of them (FSDP2)."""

    def __post_init__(self) -> None:
        for name in ("steps", "evaluate_every", "checkpoint_every", "checkpoints"):
            checks.integer(f"run.{name}", getattr(self, name), at_least=1)


@dataclass
class WarmStart:
    """SFT on right answers, before a policy is trained on its own: it becomes the reference too."""

    steps: int = 0
    """Steps; 0: none, the policy starts as the model is."""
    rows: int = 64
    """Demonstrations a step."""
    learning_rate: float = 2e-3
    """Of AdamW, after a fifth of the steps."""
    file: str | None = None
    """JSONL of prompts with responses. null: right answers of the task."""


@dataclass
class Rollout:
    """What a policy is asked in a step, and how it answers."""

    prompts: int = 8
    """Prompts a step."""
    samples: int = 32
    """G: responses to each prompt. Clause: train.settings."""
    max_new_tokens: int = 16
    """T: tokens of a response; what is longer is truncated. Clause: gae.row-end."""
    temperature: float = 1.0
    """τ: logits are divided by it, for sampling and for log-probabilities. Clause: ppo.token-logprobs."""
    together: int = 8
    """Prompts that are answered at once. What is sampled depends on it, not on the number of processes."""
    engine: str = "model"
    """Who answers: "model", the one in this process; "vllm"; or MODULE:CLASS, an engine that is made anew for
    each step, from a folder with the policy and its tokenizer."""
    weight_cap: float | None = None
    """C: tokens weigh π_old/π_engine, up to so much. null: 2 where the engine is not the model, else none.
    Clause: is.truncated."""
    weight_mode: Literal["truncate", "mask"] = "truncate"
    """Whether a weight above C becomes C, or 0. Clause: is.truncated."""
    reward_model: str | None = None
    """A folder with a reward model that scores responses. null: the task does."""

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "max_new_tokens", "together"):
            checks.integer(f"rollout.{name}", getattr(self, name), at_least=1)
        if self.engine not in ("model", "vllm") and ":" not in self.engine:
            raise ValueError(f"rollout.engine must be 'model', 'vllm' or MODULE:CLASS, got {self.engine!r}")
        checks.positive("rollout.temperature", self.temperature)
        if self.prompts % self.together:
            raise ValueError(
                f"rollout.together must divide rollout.prompts, {self.prompts}, got {self.together}"
            )

    @property
    def cap(self) -> float | None:
        """The largest importance weight, None where there are no weights."""
        return 2.0 if self.weight_cap is None and self.engine != "model" else self.weight_cap


@dataclass
class Clipping:
    """The clipped policy loss, gone down in epochs and minibatches."""

    epochs: int = 1
    """How often a step goes through its responses. Clause: train.ppo-loop."""
    minibatches: int = 1
    """Updates an epoch."""
    clip_low: float = 0.2
    """ε below: the ratio is held at 1 - ε. Clause: ppo.clip."""
    clip_high: float = 0.2
    """ε above: the ratio is held at 1 + ε; larger than below, it lets rare tokens grow. Clause: ppo.clip."""
    dual_clip: float | None = None
    """c: where A < 0 the objective is at least cA. Clause: ppo.dual-clip."""
    ratio_level: Literal["token", "sequence", "sequence-token"] = "token"
    """Whose ratio it is: the token's or the response's. Clause: ppo.ratio-level."""
    aggregation: Aggregation = "token-mean"
    """How tokens become one number. Clause: ppo.aggregation."""
    horizon: float | None = None
    """What seq-mean-token-sum-norm divides by; null: max_new_tokens. Clause: ppo.aggregation-horizon."""
    entropy_coef: float = 0.0
    """Weight of the entropy, which grows, in nats. Clause: ppo.entropy."""
    kl_coef: float = 0.0
    """β: weight of the KL from the reference, in reward units a nat."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatches"):
            checks.integer(name, getattr(self, name), at_least=1)
        for name in ("clip_low", "clip_high", "kl_coef", "entropy_coef"):
            checks.non_negative(name, getattr(self, name))


@dataclass
class GRPOOptions(Clipping):
    """GRPO: groups in place of a critic."""

    baseline: Literal["group", "leave-one-out"] = "group"
    """Advantages from the mean of the group, or of its others. Clause: grpo.leave-one-out."""
    scale: Literal["std", "none"] = "std"
    """Whether the group's deviation divides. Clause: grpo.advantage."""
    ddof: int = 1
    """0 divides squares by the group's size, 1 by one less. Clause: grpo.advantage."""
    eps: float = 1e-6
    """Added to the deviation, reward units."""


@dataclass
class PPOOptions(Clipping):
    """PPO: a critic, and the KL in the reward."""

    gamma: float = 1.0
    """γ: discount a token. Clause: gae.td-error."""
    lam: float = 0.95
    """λ: weight of longer advantages. Clause: gae.backward-recursion."""
    kl_estimator: Estimator = "k1"
    """Of each token's KL. Clause: rm.shaping."""
    whiten: bool = True
    """Whether advantages get mean 0 and variance 1. Clause: gae.whitening."""
    truncation: Literal["bootstrap", "end"] = "bootstrap"
    """A response that reaches max_new_tokens could have gone on: it has no score, and the critic's value of
    what would come follows; or that is its end: it has a score, and 0 follows. Clause: gae.row-end."""
    value_clip: float | None = None
    """How far a value may move in a step, reward units; null: anywhere. Clause: vf.clip."""
    value_coef: float = 0.5
    """Weight of the critic's loss. Clause: train.tabular-step-losses."""
    critic_steps: int = 0
    """First steps in which the critic alone is trained, so that its values mean something."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.non_negative("value_coef", self.value_coef)


@dataclass
class TRPOOptions:
    """TRPO: a step as far as the KL allows."""

    max_kl: float = 0.01
    """δ: the largest KL of a step, nats. Clause: trpo.line-search."""
    cg_iters: int = 10
    """Conjugate-gradient steps. Clause: trpo.conjugate-gradient."""
    damping: float = 0.1
    """Added to the diagonal of the Fisher matrix. Clause: trpo.step-damping."""
    backtrack: float = 0.5
    """By how much a step that fails is shortened. Clause: trpo.line-search."""
    max_steps: int = 10
    """How many lengths are tried."""


@dataclass
class PairOptions:
    """Pairs of responses, of which one is preferred."""

    rows: int = 64
    """Pairs a step."""
    rejected: Literal["other", "repeated"] = "other"
    """Wrong answers of a task: those to other problems, or the right one twice, which is easy to see."""


@dataclass
class DPOOptions(PairOptions):
    """DPO: a policy from pairs, without rollouts."""

    own: bool = False
    """Whether wrong answers of a task are the policy's own, as it is at the start; problems that it answers
    rightly each time it is asked are left out."""
    asked: int = 4
    """How often it is asked each."""
    beta: float = 0.1
    """β: weight of the KL from the reference; margins are per nat. Clause: dpo.loss."""
    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """Clauses: dpo.loss, dpo.loss-hinge, dpo.loss-ipo."""
    label_smoothing: float = 0.0
    """ε: share of pairs that are thought to be the wrong way round. Clause: dpo.loss-label-smoothing."""
    average: bool = False
    """Whether log-probabilities of responses are means over tokens. Clause: dpo.sum-of-logprobs."""


@dataclass
class RewardModelOptions(PairOptions):
    """A reward model from pairs."""

    margin: float = 0.0
    """By how much a chosen score should be ahead, log-odds. Clause: rm.bradley-terry."""


@dataclass
class SFTOptions:
    """Supervised fine-tuning."""

    rows: int = 64
    """Demonstrations a step."""


@dataclass
class Settings:
    """What every run has."""

    seed: int = 0
    """Decides, with everything else, all that is random."""
    out: str = ""
    """Folder for checkpoints, metrics, the model and the report. Empty: runs/ALGORITHM-SEED."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder, if there is one."""
    problems: Problems = field(default_factory=Problems)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: Optimizer = field(default_factory=Optimizer)
    run: Run = field(default_factory=Run)


@dataclass
class SFTSettings(Settings):
    """SFT."""

    sft: SFTOptions = field(default_factory=SFTOptions)
    rollout: Rollout = field(default_factory=Rollout)


@dataclass
class RewardModelSettings(Settings):
    """A reward model."""

    reward_model: RewardModelOptions = field(default_factory=RewardModelOptions)


@dataclass
class PolicySettings(Settings):
    """A policy that starts from SFT."""

    warm_start: WarmStart = field(default_factory=WarmStart)
    rollout: Rollout = field(default_factory=Rollout)


@dataclass
class DPOSettings(PolicySettings):
    """DPO."""

    dpo: DPOOptions = field(default_factory=DPOOptions)


@dataclass
class GRPOSettings(PolicySettings):
    """GRPO."""

    grpo: GRPOOptions = field(default_factory=GRPOOptions)


@dataclass
class PPOSettings(PolicySettings):
    """PPO."""

    ppo: PPOOptions = field(default_factory=PPOOptions)


@dataclass
class TRPOSettings(PolicySettings):
    """TRPO."""

    trpo: TRPOOptions = field(default_factory=TRPOOptions)


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """All settings by their names on the command line."""
    found: dict[str, Any] = {}
    for item in fields(settings):
        value, name = getattr(settings, item.name), prefix + item.name
        found |= flat(value, f"{name}.") if hasattr(value, "__dataclass_fields__") else {name: value}
    return found
