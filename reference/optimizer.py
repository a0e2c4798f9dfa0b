"""Optimisers: what a gradient does to parameters, after its norm is bounded.

Assumptions: the gradient is that of a loss, which is to fall, in all the parameters that one optimiser
trains; it is finite. An optimiser's state begins at 0.

Shapes: parameters, gradients and moments are alike, (S, K) here, which stands for any; what is per parameter
has the units of its loss and of that parameter.
"""

from reference import checks, numbers
from reference.numbers import Array, Scalar


def clip_by_norm(gradient: Array, *, max_grad_norm: Scalar, clip_eps: Scalar = 1e-6) -> Array:
    """Gradient times min(1, c / (‖g‖ + ε)): one factor for all parameters, so that its direction stays.

    Clause: `train.tabular-step-clipping`.

    Parameters
    ----------
    gradient : (S, K)
        g, all of it.
    max_grad_norm : float, above 0
        c, the largest norm that is left as it is.
    clip_eps : float, at least 0
        ε, in units of the norm.

    Returns
    -------
    (S, K)
        The gradient itself where ‖g‖ + ε is at most c.

    Raises
    ------
    ValueError
        For a max_grad_norm that is not above 0, or a negative clip_eps.

    Source
    ------
    Pascanu et al. 2013, arXiv:1211.5063v2, algorithm 1, which has no ε.

    Examples
    --------
    >>> clip_by_norm([[3.0, 4.0]], max_grad_norm=2.5, clip_eps=0.0)
    array([[1.5, 2. ]])
    """
    checks.positive("max_grad_norm", max_grad_norm)
    checks.non_negative("clip_eps", clip_eps)
    gradient = checks.real_array("gradient", gradient, (None, None))
    norm = numbers.sqrt(numbers.total(numbers.square(gradient)))
    limit = numbers.full((), 1, like=gradient)[()] * max_grad_norm
    clipped: Array = gradient * (max_grad_norm / numbers.maximum(norm + clip_eps, limit))
    return clipped


def sgd_step(parameters: Array, gradient: Array, *, learning_rate: Scalar) -> Array:
    """Parameters less the learning rate times the gradient.

    Clause: `train.tabular-step`. Shape (S, K); the learning rate is at least 0.

    Examples
    --------
    >>> sgd_step([[1.0, 2.0]], [[4.0, 0.0]], learning_rate=0.25)
    array([[0., 2.]])
    """
    checks.non_negative("learning_rate", learning_rate)
    parameters = checks.real_array("parameters", parameters, (None, None))
    gradient = checks.real_array("gradient", gradient, parameters.shape, like="parameters")
    return parameters - learning_rate * gradient


def adam_step(
    parameters: Array,
    gradient: Array,
    first: Array,
    second: Array,
    *,
    count: int,
    learning_rate: Scalar,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    adam_eps: Scalar = 1e-8,
) -> tuple[Array, Array, Array]:
    """Parameters less η m̂ / (√v̂ + ε), and the moments m and v that they took.

    Clause: `train.tabular-step-adam`.

    Parameters
    ----------
    parameters, gradient : (S, K)
        θ and g.
    first, second : (S, K)
        Moments m and v as the step before left them; 0 before the first.
    count : int, at least 1
        Which step this is: t, by which the moments' bias is corrected.
    learning_rate : float, at least 0
        η.
    beta1, beta2 : float, at least 0 and below 1
        Shares that the moments keep in a step.
    adam_eps : float, above 0
        ε, outside the root, in units of the gradient.

    Returns
    -------
    three of (S, K)
        θ, m and v after the step. A gradient of 0 from moments of 0 leaves θ as it is.

    Raises
    ------
    ValueError
        For a count below 1, options out of their ranges, or shapes that disagree.

    Source
    ------
    Kingma and Ba 2015, arXiv:1412.6980v9, algorithm 1.

    Examples
    --------
    >>> zero = [[0.0, 0.0]]
    >>> adam_step([[1.0, 1.0]], [[-4.0, 0.0]], zero, zero, count=1, learning_rate=0.5, adam_eps=4.0)[0]
    array([[1.25, 1.  ]])
    """
    checks.integer("count", count, at_least=1)
    checks.non_negative("learning_rate", learning_rate)
    checks.below_one("beta1", beta1)
    checks.below_one("beta2", beta2)
    checks.positive("adam_eps", adam_eps)
    parameters = checks.real_array("parameters", parameters, (None, None))
    gradient, first, second = (
        checks.real_array(name, x, parameters.shape, like="parameters")
        for name, x in (("gradient", gradient), ("first", first), ("second", second))
    )
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * numbers.square(gradient)
    mean = first / (1 - numbers.powers(beta1, count + 1)[-1])
    square = second / (1 - numbers.powers(beta2, count + 1)[-1])
    return parameters - learning_rate * mean / (numbers.sqrt(square) + adam_eps), first, second
