"""From logits to log-probabilities and entropy, over a vocabulary in which some tokens may be ruled out.

Assumptions: logits are real or -inf, and in each position at least one is real. A token whose logit is
-inf has probability 0: it takes no part in any sum below, and no gradient reaches its logit.

Shapes: B rows, T positions, V tokens of the vocabulary. Logits are dimensionless, log-probabilities and
entropies are in nats.
"""

import numpy as np

from reference import checks, numbers
from reference.checks import Indices
from reference.numbers import Array, Scalar


def token_logprobs(logits: Array, tokens: Indices, *, temperature: Scalar = 1.0) -> Array:
    """Log-probabilities of the tokens: logit / τ less log Σ exp(logit / τ).

    Clauses: `ppo.token-logprobs`, `ppo.token-logprobs-extremes`.

    Parameters
    ----------
    logits : (B, T, V)
        Logits, real or -inf.
    tokens : (B, T) int
        The token of each position, 0 ... V-1.
    temperature : float, above 0
        τ, by which the logits are divided before anything else.

    Returns
    -------
    (B, T)
        Log-probabilities, at most 0, in nats.

    ==============================  ====
    the token's logit is -inf       -inf
    all others' logits are -inf     0
    ==============================  ====

    Raises
    ------
    ValueError
        For a temperature that is not above 0, tokens that are no integers or lie outside the vocabulary,
        shapes that disagree.

    Source
    ------
    Blanchard, Higham and Higham 2021, *Accurately computing the log-sum-exp and softmax functions*, IMA J.
    Numer. Anal. 41.

    Examples
    --------
    >>> token_logprobs([[[0.0, 0.0], [0.0, -np.inf]]], np.array([[1, 0]]))
    array([[-0.69314718,  0.        ]])
    """
    scaled = _scaled(logits, temperature)
    tokens = checks.index_array("tokens", tokens, scaled.shape[:-1], below=scaled.shape[-1], like="logits")
    chosen = np.take_along_axis(scaled, tokens[..., None], axis=-1)[..., 0]
    return chosen - numbers.logsumexp(scaled)


def token_logprobs_gradient(
    upstream: Array, logits: Array, tokens: Indices, *, temperature: Scalar = 1.0
) -> Array:
    """Gradient of Σ upstream · :func:`token_logprobs` in the logits: upstream ([v = token] - p_v) / τ.

    Clause: `ppo.token-logprobs-gradient`. Shape (B, T, V); 0 at logits of -inf.

    Examples
    --------
    >>> token_logprobs_gradient(np.array([[2.0]]), [[[0.0, 0.0]]], np.array([[1]]))
    array([[[-1.,  1.]]])
    """
    scaled = _scaled(logits, temperature)
    tokens = checks.index_array("tokens", tokens, scaled.shape[:-1], below=scaled.shape[-1], like="logits")
    upstream = checks.real_array("upstream", upstream, tokens.shape, like="tokens")
    p = probabilities(logits, temperature=temperature)
    of_token = np.arange(scaled.shape[-1]) == tokens[..., None]
    slope = numbers.product(upstream[..., None], numbers.where(of_token, 1 - p, -p), over=temperature)
    return numbers.where(_possible(scaled), slope, numbers.zeros(slope.shape, like=slope))


def token_entropy(logits: Array, *, temperature: Scalar = 1.0) -> Array:
    """Entropy of the distribution in each position: -Σ p log p.

    Clauses: `ppo.entropy`, `ppo.entropy-extremes`.

    Parameters
    ----------
    logits : (B, T, V)
        Logits, real or -inf.
    temperature : float, above 0
        τ, by which the logits are divided before anything else.

    Returns
    -------
    (B, T)
        Entropies in [0, log V], in nats.

    =============================  =====
    all logits equal               log V
    one real logit, the rest -inf  0
    =============================  =====

    Raises
    ------
    ValueError
        For a temperature that is not above 0, or logits of another shape.

    Source
    ------
    Shannon 1948, *A mathematical theory of communication*, section 6.

    Examples
    --------
    >>> token_entropy([[[0.0, 0.0, -np.inf], [0.0, -np.inf, -np.inf]]])
    array([[0.69314718, 0.        ]])
    """
    scaled = _scaled(logits, temperature)
    possible = _possible(scaled)
    nothing = numbers.zeros(scaled.shape, like=scaled)
    logprobs = numbers.where(possible, scaled - numbers.logsumexp(scaled)[..., None], nothing)
    return 0 - numbers.total(probabilities(logits, temperature=temperature) * logprobs, axis=-1)


def token_entropy_gradient(upstream: Array, logits: Array, *, temperature: Scalar = 1.0) -> Array:
    """Gradient of Σ upstream · :func:`token_entropy` in the logits: -upstream p_v (log p_v + H) / τ.

    Clause: `ppo.entropy-gradient`. Shape (B, T, V); 0 at logits of -inf.

    Examples
    --------
    >>> token_entropy_gradient(np.array([[1.0]]), [[[0.0, 0.0, -np.inf]]])
    array([[[-0., -0.,  0.]]])
    """
    scaled = _scaled(logits, temperature)
    upstream = checks.real_array("upstream", upstream, scaled.shape[:-1], like="logits")
    nothing = numbers.zeros(scaled.shape, like=scaled)
    possible = _possible(scaled)
    logprobs = numbers.where(possible, scaled - numbers.logsumexp(scaled)[..., None], nothing)
    excess = logprobs + token_entropy(logits, temperature=temperature)[..., None]
    p = probabilities(logits, temperature=temperature)
    slope = numbers.product(-upstream[..., None], p, excess, over=temperature)
    return numbers.where(possible, slope, nothing)


def probabilities(logits: Array, *, temperature: Scalar = 1.0) -> Array:
    """Softmax of the logits / τ: the probability of every token of the vocabulary. Shape (B, T, V).

    Clause: `ppo.entropy`.

    Examples
    --------
    >>> probabilities([[[np.log(3.0), 0.0, -np.inf]]])
    array([[[0.75, 0.25, 0.  ]]])
    """
    scaled = _scaled(logits, temperature)
    nothing = numbers.zeros(scaled.shape, like=scaled)
    return numbers.where(
        _possible(scaled), numbers.exp(scaled - numbers.logsumexp(scaled)[..., None]), nothing
    )


def _scaled(logits: Array, temperature: Scalar) -> Array:
    """Check the arguments, and divide the logits by the temperature."""
    checks.positive("temperature", temperature)
    return checks.real_array("logits", logits, (None, None, None)) / temperature


def _possible(logits: Array) -> Array:
    """Which tokens are not ruled out: a condition for :func:`reference.numbers.where`."""
    possible: Array = numbers.less(-np.inf, logits)
    return possible
