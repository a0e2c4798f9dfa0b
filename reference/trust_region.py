"""Trust regions: surrogates, mean KL, Fisher-vector products, conjugate gradients, the step, the line search.

Assumptions: S states and A actions; a policy is a table of probabilities (S, A) or of their logarithms;
the visitation of a state is how often, discounted, it is met from the start: Σ_t γ^t P(s_t = s). D counts
parameters. A matrix is given by a callable that multiplies it with a vector, and is symmetric.

Advantages have reward units, log-probabilities and KL are in nats. A callable is given vectors of the
number system of the other arguments, and answers in it.
"""

from collections.abc import Callable

import numpy as np

from reference import checks, numbers
from reference.numbers import Array, Mask, Scalar

MatrixVectorProduct = Callable[[Array], Array]
Evaluation = Callable[[Array], tuple[Scalar, Scalar]]


def expected_advantage(visitation: Array, policy: Array, advantages: Array) -> Scalar:
    """Advantage that a policy gathers where states are visited so often: Σ_s ρ(s) Σ_a π(a|s) A(s, a).

    Clauses: `trpo.performance-difference`, `trpo.local-approximation`.

    Parameters
    ----------
    visitation : (S,)
        ρ(s), of the new policy or of the old one.
    policy : (S, A)
        Probabilities of the new policy.
    advantages : (S, A)
        Advantages of the old policy.

    Returns
    -------
    scalar
        η(π') - η(π) with the visitation of π', and L_π(π') - η(π) with that of π.

    Raises
    ------
    ValueError
        For shapes that disagree.

    Source
    ------
    Schulman et al. 2015, arXiv:1502.05477v5, eqs. (2) and (3).

    Examples
    --------
    >>> expected_advantage([2.0], [[0.25, 0.75]], [[-1.0, 1.0]])
    1.0
    """
    policy = checks.real_array("policy", policy, (None, None))
    advantages = checks.real_array("advantages", advantages, policy.shape, like="policy")
    visitation = checks.real_array("visitation", visitation, policy.shape[:1], like="policy")
    return _scalar(numbers.total(visitation * numbers.total(policy * advantages, axis=1)))


def penalty_coefficient(advantages: Array, *, gamma: Scalar) -> Scalar:
    """Price of one nat of the largest KL of a state: C = 4 max|A| γ / (1-γ)².

    Clause: `trpo.improvement-bound`. Advantages (S, A), reward units; γ in [0, 1).

    Source
    ------
    Schulman et al. 2015, arXiv:1502.05477v5, theorem 1 and eq. (9).

    Examples
    --------
    >>> penalty_coefficient([[0.5, -1.0]], gamma=0.5)
    8.0
    """
    checks.below_one("gamma", gamma)
    advantages = checks.real_array("advantages", advantages, (None, None))
    largest = numbers.zeros((), like=advantages)
    for size in numbers.absolute(advantages).flat:
        largest = numbers.maximum(largest, size)
    return _scalar(4 * largest * gamma / numbers.square(1 - gamma))


def surrogate(logprobs: Array, old_logprobs: Array, advantages: Array, mask: Mask) -> Scalar:
    """Surrogate objective of a batch: the mean of (π/π_old) A over its active tokens.

    Clause: `trpo.surrogate`.

    Parameters
    ----------
    logprobs, old_logprobs : (B, T)
        Log-probability of each token by the new policy, and by the one that sampled it.
    advantages : (B, T)
        Advantage of each token.
    mask : (B, T) bool
        True at the tokens that the policy produced.

    Returns
    -------
    scalar
        Maximised, in reward units; 0 for a batch without any active token.

    Raises
    ------
    ValueError
        For shapes that disagree, or a mask that is not boolean.

    Source
    ------
    Schulman et al. 2015, arXiv:1502.05477v5, eq. (14).

    Examples
    --------
    >>> surrogate([[0.0, -3.0]], [[0.0, -3.0]], [[1.0, 2.0]], np.array([[True, True]]))
    1.5
    """
    logprobs = checks.real_array("logprobs", logprobs, (None, None))
    old_logprobs = checks.real_array("old_logprobs", old_logprobs, logprobs.shape, like="logprobs")
    advantages = checks.real_array("advantages", advantages, logprobs.shape, like="logprobs")
    mask = checks.mask_array("mask", mask, logprobs.shape, like="logprobs")
    nothing = numbers.zeros(logprobs.shape, like=logprobs)
    new, old, gains = (numbers.where(mask, x, nothing) for x in (logprobs, old_logprobs, advantages))
    return _scalar(numbers.total(numbers.exp(new - old) * gains) / max(int(mask.sum()), 1))


def mean_kl(old_logprobs: Array, logprobs: Array, weights: Array) -> Scalar:
    """Mean over states of KL(π_old‖π) = Σ_a π_old (log π_old - log π), in nats.

    Clause: `trpo.kl-constraint`.

    Parameters
    ----------
    old_logprobs, logprobs : (S, A)
        Log-probabilities of the old and of the new policy; -inf is allowed.
    weights : (S,)
        How often each state counts, at least 0: the visitation of the old policy. They are divided by
        their sum.

    Returns
    -------
    scalar
        At least 0; infinite where the new policy forbids an action that the old one takes.

    ================  =========================
    π_old(a|s) = 0    contributes 0
    weight 0          contributes 0
    π = π_old         0
    ================  =========================

    Raises
    ------
    ValueError
        For shapes that disagree.

    Source
    ------
    Schulman et al. 2015, arXiv:1502.05477v5, section 4, the mean KL before eq. (12).

    Examples
    --------
    >>> mean_kl(np.log([[0.5, 0.5]]), np.log([[0.5, 0.5]]), [3.0])
    0.0
    """
    old_logprobs = checks.real_array("old_logprobs", old_logprobs, (None, None))
    logprobs = checks.real_array("logprobs", logprobs, old_logprobs.shape, like="old_logprobs")
    weights = checks.real_array("weights", weights, old_logprobs.shape[:1], like="old_logprobs")
    probabilities = numbers.exp(old_logprobs)
    possible, nothing = numbers.less(0, probabilities), numbers.zeros(logprobs.shape, like=logprobs)
    old, new = (numbers.where(possible, x, nothing) for x in (old_logprobs, logprobs))
    divergences = numbers.total(probabilities * (old - new), axis=1)
    divergences = numbers.where(numbers.less(0, weights), divergences, numbers.zeros(weights.shape, like=new))
    return _scalar(numbers.total(weights * divergences) / numbers.total(weights))


def fisher_vector_product(probabilities: Array, weights: Array, vector: Array) -> Array:
    """Fisher matrix of a softmax policy's logits, times a vector: w(s) π(a|s) (v(s, a) - Σ_b π(b|s) v(s, b)).

    Clause: `trpo.fisher`.

    Parameters
    ----------
    probabilities : (S, A)
        π, the softmax of the logits.
    weights : (S,)
        How often each state counts; divided by their sum.
    vector : (S, A)
        A direction in the space of the logits.

    Returns
    -------
    (S, A)
        The product: the matrix itself, of (S A)² entries, is never made.

    Raises
    ------
    ValueError
        For shapes that disagree.

    Source
    ------
    Schulman et al. 2015, arXiv:1502.05477v5, appendix C.

    Examples
    --------
    >>> fisher_vector_product([[0.5, 0.5]], [1.0], [[1.0, 0.0]])
    array([[ 0.25, -0.25]])
    """
    probabilities = checks.real_array("probabilities", probabilities, (None, None))
    weights = checks.real_array("weights", weights, probabilities.shape[:1], like="probabilities")
    vector = checks.real_array("vector", vector, probabilities.shape, like="probabilities")
    mean = numbers.total(probabilities * vector, axis=1)
    shares = weights / numbers.total(weights)
    product: Array = shares[:, None] * probabilities * (vector - mean[:, None])
    return product


def conjugate_gradient(matvec: MatrixVectorProduct, b: Array, *, max_iters: int, tol: Scalar) -> Array:
    """Solution of A x = b by conjugate gradients from x = 0, after max_iters steps at most.

    Clauses: `trpo.conjugate-gradient`, `trpo.conjugate-gradient-stop`.

    Parameters
    ----------
    matvec : callable (D,) -> (D,)
        The product A v of a symmetric matrix without negative eigenvalues, of which b is an image.
    b : (D,)
        The right-hand side.
    max_iters : int, at least 1
        How many steps may be taken.
    tol : float, at least 0
        No step is taken from a point whose residual b - A x has a norm of at most tol, in units of b.

    Returns
    -------
    (D,)
        The last point.

    ==================  ===================================================================================
    b = 0               0
    ‖b‖ <= tol          0
    undecided on balls  the hull of stopping and of one more step: all numbers, if the residual may be 0
    ==================  ===================================================================================

    Raises
    ------
    ValueError
        For a `matvec` that cannot be called or whose product has another shape, max_iters below 1, or a
        negative tol.

    Source
    ------
    Hestenes and Stiefel 1952, *Methods of conjugate gradients for solving linear systems*, section 3.

    Examples
    --------
    >>> conjugate_gradient(lambda v: np.array([2.0, 4.0]) * v, [2.0, 2.0], max_iters=2, tol=0.0)
    array([1. , 0.5])
    """
    checks.function("matvec", matvec)
    b = checks.real_array("b", b, (None,))
    checks.integer("max_iters", max_iters, at_least=1)
    checks.non_negative("tol", tol)
    solution, residual, direction = numbers.zeros(b.shape, like=b), b, b
    for _ in range(max_iters):
        unsolved = numbers.less(numbers.square(tol), numbers.total(numbers.square(residual)))
        after, left, onward = conjugate_gradient_step(matvec, solution, residual, direction)
        solution = numbers.where(unsolved, after, solution)
        residual = numbers.where(unsolved, left, residual)
        direction = numbers.where(unsolved, onward, direction)
    return solution


def conjugate_gradient_step(
    matvec: MatrixVectorProduct, solution: Array, residual: Array, direction: Array
) -> tuple[Array, Array, Array]:
    """One step along the direction p: x + α p, r - α A p, and the next direction, conjugate to p.

    Clause: `trpo.conjugate-gradient`. α = r·r / p·A p, and the next direction is the new residual plus its
    squared norm over the old one's times p. Vectors (D,); a quotient with the divisor 0 is a quotient by 1.

    Examples
    --------
    >>> conjugate_gradient_step(lambda v: 2.0 * v, np.zeros(1), np.ones(1), np.ones(1))
    (array([0.5]), array([0.]), array([0.]))
    """
    product = checks.real_array("matvec(direction)", matvec(direction), direction.shape, like="direction")
    squared = numbers.total(numbers.square(residual))
    length = squared / _unless_zero(numbers.total(direction * product))
    following = residual - length * product
    growth = numbers.total(numbers.square(following)) / _unless_zero(squared)
    return solution + length * direction, following, following + growth * direction


def trust_region_step(
    matvec: MatrixVectorProduct,
    gradient: Array,
    *,
    max_kl: Scalar,
    cg_iters: int = 10,
    cg_tol: Scalar = 1e-10,
    damping: Scalar = 0.0,
) -> Array:
    """Step of a trust region: Δ = √(2δ / s·F s) s along the natural gradient s, F s = g.

    Clauses: `trpo.step`, `trpo.step-damping`, `trpo.step-zero`.

    Parameters
    ----------
    matvec : callable (D,) -> (D,)
        The product F₀ v of the Fisher matrix, of which the gradient is an image.
    gradient : (D,)
        Gradient g of the objective, which is to grow.
    max_kl : float, at least 0
        δ, in nats: what ½ Δ·F Δ becomes.
    cg_iters, cg_tol
        `max_iters` and `tol` of :func:`conjugate_gradient`, which finds s.
    damping : float, at least 0
        F = F₀ + damping · 1, throughout.

    Returns
    -------
    (D,)
        Δ, to be added to the parameters.

    ==================  =====
    g = 0               0
    ‖g‖ <= cg_tol       0
    ==================  =====

    Raises
    ------
    ValueError
        For a negative max_kl or damping, and as :func:`conjugate_gradient`.

    Source
    ------
    Schulman et al. 2015, arXiv:1502.05477v5, appendix C.

    Examples
    --------
    >>> trust_region_step(lambda v: 2.0 * v, [3.0, 4.0], max_kl=25.0)
    array([3., 4.])
    """
    checks.function("matvec", matvec)
    gradient = checks.real_array("gradient", gradient, (None,))
    checks.integer("cg_iters", cg_iters, at_least=1)
    checks.non_negative("cg_tol", cg_tol)
    checks.non_negative("max_kl", max_kl)
    checks.non_negative("damping", damping)

    def damped(vector: Array) -> Array:
        product = checks.real_array("matvec(vector)", matvec(vector), vector.shape, like="gradient")
        return product + damping * vector

    direction = conjugate_gradient(damped, gradient, max_iters=cg_iters, tol=cg_tol)
    curvature = numbers.total(direction * damped(direction))
    step: Array = numbers.sqrt(2 * max_kl / _unless_zero(curvature)) * direction
    return step


def backtracking_line_search(
    evaluate: Evaluation,
    parameters: Array,
    full_step: Array,
    *,
    max_kl: Scalar,
    backtrack: Scalar = 0.5,
    max_steps: int = 10,
) -> Array:
    """First of the points θ + β^j Δ, j = 0, 1 ..., that improves and keeps the KL; θ itself if there is none.

    Clause: `trpo.line-search`.

    Parameters
    ----------
    evaluate : callable (D,) -> (improvement, kl)
        What a point improves the surrogate by, and its KL from the old policy, in nats. It is asked about
        every point, in no order that matters.
    parameters, full_step : (D,)
        θ and Δ.
    max_kl : float, at least 0
        The largest KL that is accepted.
    backtrack : float, strictly between 0 and 1
        β, by which a step is shortened.
    max_steps : int, at least 1
        How many points are tried.

    Returns
    -------
    (D,)
        The first point with improvement > 0 and kl <= max_kl.

    ========================  =======================================
    improvement or kl is NaN  the point is not accepted
    improvement = 0           the point is not accepted
    kl = max_kl               accepted, if it improves
    no point is accepted      the parameters, bit by bit
    undecided on balls        the hull of accepting and of going on
    ========================  =======================================

    Raises
    ------
    ValueError
        For an `evaluate` that cannot be called, shapes that disagree, or options out of their ranges.

    Source
    ------
    Schulman et al. 2015, arXiv:1502.05477v5, appendix C.

    Examples
    --------
    >>> backtracking_line_search(lambda x: (1.0, float(x @ x)), [0.0], [2.0], max_kl=1.0)
    array([1.])
    """
    checks.function("evaluate", evaluate)
    parameters = checks.real_array("parameters", parameters, (None,))
    full_step = checks.real_array("full_step", full_step, parameters.shape, like="parameters")
    checks.non_negative("max_kl", max_kl)
    checks.open_unit_interval("backtrack", backtrack)
    checks.integer("max_steps", max_steps, at_least=1)
    chosen = parameters
    for fraction in reversed(numbers.powers(backtrack, max_steps)):
        point = parameters + fraction * full_step
        improvement, kl = evaluate(point)
        within = numbers.where(numbers.less_equal(kl, max_kl), point, chosen)
        chosen = numbers.where(numbers.less(0, improvement), within, chosen)
    return chosen


def _unless_zero(divisor: Array) -> Scalar:
    """A divisor that is not negative, or 1 in the place of 0."""
    one = numbers.full((), 1, like=divisor)[()]
    return _scalar(numbers.where(numbers.less(0, divisor), divisor, one))


def _scalar(x: Array) -> Scalar:
    """A 0-d array, or an object of one, as the number that it holds."""
    return np.asarray(x).item()
