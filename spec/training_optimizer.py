"""Derivations of the chapter `train` about optimisers: what clipping and Adam make of a gradient."""

from typing import Any

import numpy as np
import sympy

from reference import optimizer
from spec.pieces import piece
from spec.proofs import Numbers, agree, derivation
from spec.symbolic import ONE, ZERO

optimizers: Any = optimizer
RATE = sympy.Symbol("eta", positive=True)
SLOW, SQUARE = sympy.symbols("beta_1 beta_2", positive=True)


@derivation("train.tabular-step-clipping", status="proved")
def clipped_gradients_keep_their_direction() -> Numbers:
    """c/(‖g‖ + ε) g on the code, whose norm is below c; a norm for each part turns the gradient."""
    g, h, bound, eps = sympy.symbols("g h c epsilon", positive=True)
    gradient = np.array([[g, -h]], dtype=object)
    found = optimizers.clip_by_norm(gradient, max_grad_norm=bound, clip_eps=eps)
    norm = sympy.sqrt(g**2 + h**2)
    long, short = ({g: 3, h: 4, eps: ONE, bound: ONE * size} for size in (2, 8))
    agree(piece(found, long), gradient * bound / (norm + eps))
    agree(piece(found, short), gradient)
    agree(
        (g * bound / (norm + eps)) ** 2 + (h * bound / (norm + eps)) ** 2, (bound * norm / (norm + eps)) ** 2
    )
    whole = np.array([[3.0, 4.0]])
    kept = optimizers.clip_by_norm(whole, max_grad_norm=1.0, clip_eps=0.0)
    parts = [optimizers.clip_by_norm(whole[:, [k]], max_grad_norm=1.0, clip_eps=0.0)[0, 0] for k in (0, 1)]
    values = np.clip(whole, -1.0, 1.0)[0]
    return {"g": 3, "h": 4} | dict(zip(("kept g", "kept h"), kept[0], strict=True)) | {
        "parts": parts[0], "values": values[1],
    }  # fmt: skip


@derivation("train.tabular-step-adam", status="verified for t <= 4")
def moving_means_of_any_gradients() -> None:
    """m and v are the weighted sums that their recursions unroll to, and the step is η m̂ / (√v̂ + ε)."""
    gradients, eps = sympy.symbols("g_1:5", real=True), sympy.Symbol("epsilon", positive=True)
    options = {"learning_rate": RATE, "beta1": SLOW, "beta2": SQUARE, "adam_eps": eps}
    table = first = second = np.array([[ZERO]], dtype=object)
    for count, gradient in enumerate(gradients, start=1):
        after, first, second = optimizers.adam_step(
            table, [[gradient]], first, second, count=count, **options
        )
        for found, beta, power in ((first, SLOW, 1), (second, SQUARE, 2)):
            weights = [(1 - beta) * beta ** (count - k) for k in range(1, count + 1)]
            agree(found, [[sum(w * g**power for w, g in zip(weights, gradients[:count], strict=True))]])
        mean, root = first[0, 0] / (1 - SLOW**count), sympy.sqrt(second[0, 0] / (1 - SQUARE**count))
        agree(table - after, [[RATE * mean / (root + eps)]])
        table = after


@derivation("train.tabular-step-adam", status="verified for t <= 4")
def a_steady_gradient_takes_equal_steps() -> Numbers:
    """With the bias corrected, m̂ = g and v̂ = g² at every step: η g / (|g| + ε) each time."""
    g, eps = sympy.symbols("g epsilon", positive=True)
    options = {"learning_rate": RATE, "beta1": SLOW, "beta2": SQUARE, "adam_eps": eps}
    table = first = second = np.array([[ZERO]], dtype=object)
    for count in range(1, 5):
        after, first, second = optimizers.adam_step(table, [[g]], first, second, count=count, **options)
        agree(table - after, [[RATE * g / (g + eps)]])
        table = after
    zero = np.array([[ZERO]], dtype=object)
    agree(optimizers.adam_step(zero, zero, zero, zero, count=1, **options)[0], zero)
    uncorrected = (1 - 0.9) / np.sqrt(1 - 0.999)
    inside = 1e-3 / np.sqrt(1e-6 + 1e-4)
    zeros: Any = ([[0.0]], [[0.0]])
    outside = optimizers.adam_step([[0.0]], [[1e-3]], *zeros, count=1, learning_rate=1.0, adam_eps=1e-4)
    return {"uncorrected": uncorrected, "eps outside": -outside[0][0, 0], "eps inside": inside} | {
        "beta1": 0.9, "beta2": 0.999, "g": 0.001, "eps": 0.0001,
    }  # fmt: skip
