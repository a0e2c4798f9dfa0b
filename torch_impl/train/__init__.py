"""Trainers: SFT, reward model, PPO, GRPO, DPO, TRPO, by the operations of `torch_impl`.

`python -m torch_impl.train --help` says how to run them. What to read, in this order:

- one file an algorithm: `grpo`, `ppo`, `trpo`, `dpo`, `reward_model`, `sft`; how a step is taken: `descent`
  and `step`; the loop around it: `loop`;
- what they are made of: `tasks`, `data`, `tokens`, `models`, `responses`, `rollouts`, `sampling`, `pairs`;
- what holds a run together: `settings`, `checkpoints`, `distributed`, `metrics`, `report`.

Every random draw of a step is seeded by the run's seed and the step's number: a run that is killed and
resumed is the run that was not.
"""
