"""A right backend in NumPy: sums over 1, 2, 4 ... tokens by doubling, as parallel scans have them."""

import numpy as np

from tests.right_backends.other_associations import _next, td_errors

array_library = "numpy"
name = "doubling"


def gae(rewards, values, mask, bootstrap_value, *, gamma, lam, masked="skip"):
    steps = mask
    if masked == "zero":
        rewards, values = np.where(mask, rewards, 0), np.where(mask, values, 0)
        steps = np.cumsum(mask[:, ::-1], axis=1)[:, ::-1] > 0
    errors = td_errors(rewards, values, steps, bootstrap_value, gamma=gamma)
    return np.where(mask, _discounted(errors, steps, gamma * lam), 0)


def lambda_returns(rewards, values, mask, bootstrap_value, *, gamma, lam, masked="skip"):
    advantages = gae(rewards, values, mask, bootstrap_value, gamma=gamma, lam=lam, masked=masked)
    return np.where(mask, values + advantages, 0)


def discounted_returns(rewards, mask, bootstrap_value, *, gamma):
    x = np.concatenate([np.where(mask, rewards, 0), bootstrap_value[:, None]], axis=1)
    m = np.concatenate([mask, np.ones_like(mask[:, :1])], axis=1)
    return _discounted(x, m, gamma)[:, :-1]


def _packed(x, mask):
    order = np.argsort(~mask, axis=1, kind="stable")
    return np.take_along_axis(np.where(mask, x, 0), order, axis=1)


def _unpacked(packed, mask):
    return np.take_along_axis(packed, np.maximum(np.cumsum(mask, axis=1) - 1, 0), axis=1)


def _discounted(x, mask, discount):
    sums = _packed(x, mask)
    reach = 1
    while reach < sums.shape[1]:
        behind = np.zeros_like(sums)
        behind[:, :-reach] = sums[:, reach:]
        sums = sums + discount**reach * behind
        reach *= 2
    return _unpacked(sums, mask)
