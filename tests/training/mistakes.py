"""Mistakes of trainers, each in one that is at its start: what `replay` writes out does not have them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_impl import gae, group, preference, reward
from torch_impl.train import descent, dpo, grpo, pairs, ppo, reward_model, sft, trpo
from torch_impl.train.actors import Actor, Critic
from torch_impl.train.step import Counts

Mistake = Callable[[Any, pytest.MonkeyPatch], None]
"""Changes a trainer, or what its module calls."""


def of_module(trainer: Any) -> Any:
    return {"ppo": ppo, "grpo": grpo, "dpo": dpo, "sft": sft}[trainer.name]


def remembered(trainer: Any) -> list[Any]:
    """What PPO has sampled last."""
    held: list[Any] = []
    look_back = trainer.look_back

    def watched(sampled: Any) -> Any:
        held[:] = [sampled]
        return look_back(sampled)

    trainer.look_back = watched
    return held


def without_end(mask: Tensor) -> Tensor:
    """All but the last token of each row."""
    return mask & pad(mask[:, 1:], (0, 1))


def old_logprobs_anew_in_each_epoch(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def anew(rows: Any, *how: Any) -> Iterator[Any]:
        return descent.minibatches(replace(rows, old_logprobs=trainer.actor.of_all(rows.rollouts)[0]), *how)

    patch.setattr(of_module(trainer), "minibatches", anew)


def old_logprobs_anew_in_each_update(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    loss = trainer.loss
    trainer.loss = lambda x: loss(replace(x, old_logprobs=trainer.actor.of_all(x.rollouts)[0]))


def reference_follows_the_policy(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    trainer.reference = trainer.actor


def order_is_that_of_the_first_epoch(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def again(rows: Any, count: int, number: int, seed: int, name: str, step: int, epoch: int) -> Any:
        return descent.minibatches(rows, count, number, seed, name, step, 0)

    patch.setattr(of_module(trainer), "minibatches", again)


def order_is_that_of_the_first_step(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def again(rows: Any, count: int, number: int, seed: int, name: str, step: int, epoch: int) -> Any:
        return descent.minibatches(rows, count, number, seed, name, 0, epoch)

    patch.setattr(of_module(trainer), "minibatches", again)


def advantages_are_of_other_rows(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def mixed(rows: Any, *how: Any) -> Iterator[Any]:
        for some in descent.minibatches(rows, *how):
            yield replace(some, advantages=rows.advantages[: len(some.advantages)])

    patch.setattr(of_module(trainer), "minibatches", mixed)


def clips_are_swapped(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    o = trainer.options
    trainer.options = replace(o, clip_low=o.clip_high, clip_high=o.clip_low)


def new_logprobs_lack_the_temperature(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    real = Actor.logprobs_and_entropy

    def cold(actor: Actor, rows: Any, *, entropy: bool = True) -> Any:
        actor = replace(actor, temperature=1.0) if torch.is_grad_enabled() else actor
        return real(actor, rows, entropy=entropy)

    patch.setattr(Actor, "logprobs_and_entropy", cold)


def all_logprobs_lack_the_temperature(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    trainer.actor = replace(trainer.actor, temperature=1.0)
    trainer.reference = replace(trainer.reference, temperature=1.0)


def micro_batches_count_by_their_rows(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Counts, "share", lambda self, whole, *_: self.rows / whole.rows)


def loss_counts_twice(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    loss = trainer.loss
    trainer.loss = lambda x: 2 * loss(x)


def entropy_falls(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    mean = trainer.mean
    trainer.mean = lambda x, mask: -mean(x, mask)


def gradients_stay_long(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    trainer.descent.settings = replace(trainer.descent.settings, max_grad_norm=None)


def optimizer_forgets_each_step(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    step = trainer.step

    def forgetful(number: int) -> Any:
        trainer.descent.optimizer.state.clear()
        return step(number)

    trainer.step = forgetful


def kl_is_earned(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def turned(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, *rest: Any, **options: Any) -> Tensor:
        return reward.shaped_rewards(scores, ref_logprobs, logprobs, *rest, **options)

    patch.setattr(ppo, "shaped_rewards", turned)


def anew_in_each_epoch(name: str) -> Mistake:
    """Something of PPO's that is fixed for a step is taken from the policy and the critic as they are."""

    def mistake(trainer: Any, patch: pytest.MonkeyPatch) -> None:
        held = remembered(trainer)

        def anew(rows: Any, *how: Any) -> Iterator[Any]:
            fresh, _ = ppo.PPO.look_back(trainer, held[0])
            return descent.minibatches(replace(rows, **{name: getattr(fresh, name)}), *how)

        patch.setattr(ppo, "minibatches", anew)

    mistake.__name__ = f"{name}_anew_in_each_epoch"
    return mistake


def returns_are_of_whitened_advantages(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def wrong(rows: Any, *how: Any) -> Iterator[Any]:
        return descent.minibatches(replace(rows, returns=rows.advantages + rows.old_values), *how)

    patch.setattr(ppo, "minibatches", wrong)


def minibatches_are_whitened(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def whitened(rows: Any, *how: Any) -> Iterator[Any]:
        for some in descent.minibatches(rows, *how):
            yield replace(some, advantages=gae.whiten(some.advantages, some.rollouts.mask))

    patch.setattr(ppo, "whiten", lambda x, mask: x)
    patch.setattr(ppo, "minibatches", whitened)


def what_was_cut_off_is_paid_twice(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    held = remembered(trainer)

    def paid(scores: Tensor, *rest: Any, **options: Any) -> Tensor:
        return reward.shaped_rewards(held[0].scores.to(scores), *rest, **options)

    patch.setattr(ppo, "shaped_rewards", paid)


def what_was_cut_off_has_ended(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def ended(rewards: Tensor, values: Tensor, mask: Tensor, behind: Tensor, **options: Any) -> Tensor:
        return gae.gae(rewards, values, mask, torch.zeros_like(behind), **options)

    patch.setattr(ppo, "gae", ended)


def critic_has_the_rate_of_the_policy(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    first, second = trainer.descent.optimizer.param_groups
    second["lr"] = first["lr"]


def kl_grows(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def turned(*rows: Any, **options: Any) -> Tensor:
        without = group.grpo_loss(*rows, **(options | {"kl_coef": 0.0}))
        return 2 * without - group.grpo_loss(*rows, **options)

    patch.setattr(grpo, "grpo_loss", turned)


def groups_are_of_other_prompts(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    own = trainer.advantages
    trainer.advantages = lambda scores, ids: own(scores, torch.arange(len(ids)) % (ids.max() + 1))


def all_prompts_are_one_group(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    own = trainer.advantages
    trainer.advantages = lambda scores, ids: own(scores, torch.zeros_like(ids))


def rejected_is_preferred(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dpo, "dpo_loss", lambda a, b, x, y, **o: preference.dpo_loss(b, a, y, x, **o))
    patch.setattr(reward_model, "reward_model_loss", lambda a, b, **o: reward.reward_model_loss(b, a, **o))


def reference_is_of_the_wrong_half(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dpo, "dpo_loss", lambda a, b, x, y, **o: preference.dpo_loss(a, b, y, x, **o))


def pairs_lie_one_after_the_other(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def found(logprobs: Tensor, some: Any) -> Any:
        sums = preference.sequence_logprobs(logprobs, some.together().mask)
        return sums[::2], sums[1::2]

    trainer.of_responses = found


def ends_are_left_out(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def cut(*given: Any) -> Any:
        rows = pairs.collate(*given)
        return replace(rows, mask=without_end(rows.mask))

    patch.setattr(sft, "collate", cut)
    summed = preference.sequence_logprobs
    patch.setattr(dpo, "sequence_logprobs", lambda x, mask, **o: summed(x, without_end(mask), **o))


def scores_are_of_the_first_token(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Critic, "scores", lambda critic, rows: critic.values(rows)[:, 0])


def scores_are_of_the_padding(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Critic, "scores", lambda critic, rows: critic.values(rows)[:, -1])


def margins_of_pairs_are_left_out(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    def without(*given: Any) -> Any:
        some = pairs.collate_pairs(*given)
        return replace(some, margins=torch.zeros_like(some.margins))

    patch.setattr(reward_model, "collate_pairs", without)


def groups_are_scaled(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(trpo, "rloo_advantages", group.group_advantages)


def damping_is_left_out(trainer: Any, patch: pytest.MonkeyPatch) -> None:
    trainer.options = replace(trainer.options, damping=0.0)


OF_BOTH: list[Mistake] = [
    old_logprobs_anew_in_each_epoch,
    old_logprobs_anew_in_each_update,
    reference_follows_the_policy,
    order_is_that_of_the_first_epoch,
    order_is_that_of_the_first_step,
    advantages_are_of_other_rows,
    clips_are_swapped,
    new_logprobs_lack_the_temperature,
    micro_batches_count_by_their_rows,
    loss_counts_twice,
    entropy_falls,
    gradients_stay_long,
    optimizer_forgets_each_step,
]
MISTAKES: dict[str, list[Mistake]] = {
    "ppo": [
        *OF_BOTH,
        kl_is_earned,
        anew_in_each_epoch("advantages"),
        anew_in_each_epoch("returns"),
        returns_are_of_whitened_advantages,
        minibatches_are_whitened,
        what_was_cut_off_is_paid_twice,
        what_was_cut_off_has_ended,
        critic_has_the_rate_of_the_policy,
    ],
    "grpo": [
        *OF_BOTH,
        kl_grows,
        groups_are_of_other_prompts,
        all_prompts_are_one_group,
        all_logprobs_lack_the_temperature,
    ],
    "dpo": [
        loss_counts_twice,
        rejected_is_preferred,
        reference_is_of_the_wrong_half,
        reference_follows_the_policy,
        pairs_lie_one_after_the_other,
        ends_are_left_out,
    ],
    "reward-model": [
        loss_counts_twice,
        rejected_is_preferred,
        scores_are_of_the_first_token,
        scores_are_of_the_padding,
        margins_of_pairs_are_left_out,
    ],
    "sft": [
        loss_counts_twice,
        micro_batches_count_by_their_rows,
        ends_are_left_out,
        optimizer_forgets_each_step,
    ],
    "trpo": [groups_are_scaled, damping_is_left_out, micro_batches_count_by_their_rows],
}
