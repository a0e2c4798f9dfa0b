"""Wrong backends of the chapter `trust_region`."""

from functools import partial

from tests.wrong_backends.edits import Edit

edit = partial(Edit, clause="trpo.", base="torch_trust_region")

SOLVE, STEP, SEARCH = "conjugate_gradient", "trust_region_step", "backtracking_line_search"
STOP = "residual.norm() <= tol"
LOOP = "range(max_iters)"
START = "torch.zeros_like(b), b, b"
LENGTH = "residual.square().sum() / (direction @ product)"
GROWTH = "left.square().sum() / residual.square().sum() * direction"
LEFT = "residual - length * product"
DIRECTION = "_solution(fisher, gradient, cg_iters, cg_tol)"
CURVATURE = "direction @ fisher(direction)"
SIZED = "sqrt(2 * max_kl) / curvature.sqrt() * direction"
POINT = "parameters + backtrack**j * full_step"
TRIES = "range(max_steps)"
ACCEPTED = "improvement > 0 and kl <= max_kl"

EDITS = (
    edit(SOLVE, "never stops", STOP, "False"),
    edit(
        SOLVE,
        "the old residual",
        "direction = left +",
        "direction = residual +",
        thread="leopard-ai/betty#15",
    ),
    edit(SOLVE, "the tolerance on the square", STOP, "residual.square().sum() <= tol"),
    edit(SOLVE, "a relative tolerance", STOP, "residual.norm() <= tol * b.norm()"),
    edit(SOLVE, "the largest residual", STOP, "residual.abs().max() <= tol"),
    edit(SOLVE, "the tolerance ignored", STOP, "residual.norm() == 0"),
    edit(SOLVE, "one step too many", LOOP, "range(max_iters + 1)"),
    edit(SOLVE, "one step too few", LOOP, "range(max_iters - 1)"),
    edit(SOLVE, "at most 4 steps", LOOP, "range(min(max_iters, 4))", dtype="float64"),
    edit(SOLVE, "starts at b", START, "b.clone(), b, b"),
    edit(SOLVE, "steepest descent", GROWTH, "0 * direction"),
    edit(
        SOLVE, "the growth upside down", GROWTH, "residual.square().sum() / left.square().sum() * direction"
    ),
    edit(
        SOLVE,
        "1e-8 added to the curvature",
        LENGTH,
        "residual.square().sum() / (direction @ product + 1e-8)",
        dtype="float64",
    ),
    edit(
        SOLVE, "1e-3 added to the curvature", LENGTH, "residual.square().sum() / (direction @ product + 1e-3)"
    ),
    edit(SOLVE, "bfloat16 inside", "matvec(direction)", "matvec(direction).bfloat16().to(b.dtype)"),
    edit(SOLVE, "float32 inside", "matvec(direction)", "matvec(direction).float().double()", dtype="float64"),
    edit(
        SOLVE, "written into b", START, "torch.zeros_like(b), b, b; b *= 1 + 2**-20", clause="contract.pure"
    ),
    edit(STEP, "half the budget", "2 * max_kl", "max_kl"),
    edit(STEP, "no root", SIZED, "(2 * max_kl / curvature) * direction"),
    edit(STEP, "downhill", SIZED, f"-{SIZED}"),
    edit(STEP, "the length of the direction", CURVATURE, "direction @ direction"),
    edit(STEP, "the gradient for its natural one", DIRECTION, "gradient"),
    edit(STEP, "no damping in the length", CURVATURE, "direction @ matvec(direction)"),
    edit(STEP, "no damping in the direction", DIRECTION, DIRECTION.replace("fisher", "matvec")),
    edit(STEP, "damping twice in the length", CURVATURE, f"{CURVATURE} + damping * direction.square().sum()"),
    edit(STEP, "damping for every parameter", "damping * vector", "damping"),
    edit(STEP, "damping by 0.1", "damping * vector", "0.1 * vector"),
    edit(STEP, "0 divided by 0", "if curvature <= 0", "if curvature < 0"),
    edit(STEP, "the number of steps ignored", DIRECTION, "_solution(fisher, gradient, 10, cg_tol)"),
    edit(STEP, "the tolerance ignored", DIRECTION, "_solution(fisher, gradient, cg_iters, 0.0)"),
    edit(
        STEP,
        "the last parameter left out",
        SIZED,
        f"torch.cat([({SIZED})[:-1], 0 * direction[-1:]])",
        thread="openai/baselines commit ebb8aff",
    ),
    edit(
        STEP,
        "1e-8 added to the curvature",
        "/ curvature.sqrt()",
        "/ (curvature + 1e-8).sqrt()",
        dtype="float64",
    ),
    edit(STEP, "bfloat16 inside", CURVATURE, f"({CURVATURE}).bfloat16().to(gradient.dtype)"),
    edit(SEARCH, "no look at the KL", ACCEPTED, "improvement > 0", thread="joschu/modular_rl#29"),
    edit(SEARCH, "no look at the improvement", ACCEPTED, "kl <= max_kl"),
    edit(SEARCH, "an improvement of 0", ACCEPTED, "improvement >= 0 and kl <= max_kl"),
    edit(SEARCH, "a KL below the bound", ACCEPTED, "improvement > 0 and kl < max_kl"),
    edit(SEARCH, "a KL of 1.5 times the bound", ACCEPTED, "improvement > 0 and kl <= 1.5 * max_kl"),
    edit(SEARCH, "NaN is accepted", ACCEPTED, "not improvement <= 0 and not kl > max_kl"),
    edit(
        SEARCH,
        "the last point tried",
        "return parameters.clone()",
        "return point",
        thread="thu-ml/tianshou#1287",
    ),
    edit(
        SEARCH,
        "the full step after all",
        "return point",
        "return parameters + full_step",
        thread="wojzaremba/trpo#1",
    ),
    edit(SEARCH, "one try too many", TRIES, "range(max_steps + 1)"),
    edit(SEARCH, "one try too few", TRIES, "range(max_steps - 1)"),
    edit(SEARCH, "the full step not tried", TRIES, "range(1, max_steps)"),
    edit(SEARCH, "the shortest step first", TRIES, "reversed(range(max_steps))"),
    edit(SEARCH, "at most 5 tries", TRIES, "range(min(max_steps, 5))"),
    edit(SEARCH, "always halved", POINT, "parameters + 0.5**j * full_step"),
    edit(SEARCH, "shortened by the square", POINT, "parameters + backtrack ** (2 * j) * full_step"),
    edit(
        SEARCH, "from the point before", POINT, "(parameters if j == 0 else point) + backtrack**j * full_step"
    ),
    edit(
        SEARCH,
        "written into the parameters",
        POINT,
        "parameters.add_(backtrack**j * full_step)",
        clause="contract.pure",
    ),
    edit(SOLVE, "at most 10 steps", LOOP, "range(min(max_iters, 10))", dtype="float64"),
    edit(
        STEP, "at most 6 steps", DIRECTION, DIRECTION.replace("cg_iters", "min(cg_iters, 6)"), dtype="float64"
    ),
    edit(SEARCH, "at most 10 tries", TRIES, "range(min(max_steps, 10))"),
)
