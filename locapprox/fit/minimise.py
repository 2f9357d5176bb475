"""The linear fit: one pass of model calls over the draw, a solution from its sums, and its errors."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox._notices import warn
from locapprox.fit.errors import ErrorEstimator, LeaveOut, Pass, Solver, estimator
from locapprox.fit.evidence import known
from locapprox.fit.losses import Loss
from locapprox.fit.own_weights import solved_in_turn
from locapprox.fit.quadratic import Exact, Quadratic
from locapprox.fit.result import Fit
from locapprox.fit.ridge import PairSums, Shrunk
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import UndeterminedError, design
from locapprox.fit.sums import Totals

MEAN_OF = 30  # rows of equal weight: with 23 unequal ones, a 95 % interval of a mean gradient covers .8 to .9


@dataclass(frozen=True, eq=False)
class Minimum:
    """The fit, the problem that it solves, the rows that it interpolates, and M of `Solution`."""

    fit: Fit
    problem: Quadratic
    exact: Exact
    inverse: Float[Tensor, "g p p"] | Shrunk | None

    @property
    def theta(self) -> Float[Tensor, "b k p"]:
        """Where there is an intercept."""
        return torch.cat([self.fit.weights, self.fit.intercept[..., None]], dim=-1)

    def refitted(self, w: Float[Tensor, "b m d"]) -> Float[Tensor, "b m p"]:
        """[w, c] of other weights: c by the rows to interpolate if there are any, whose weight is infinite, else the
        weighted mean of f − w · ξ."""
        return self.exact.with_intercept(w) if len(self.exact.rows) else self.problem.with_mean_intercept(w)


def minimise(
    sample: Sample,
    loss: Loss,
    intercept: bool,
    solve: Solver | None = None,
    by_groups: bool = False,
    most: int | None = None,
    matrices: bool = True,
) -> Minimum:
    """Minimise a loss that is quadratic in θ = [w, intercept] over one sample.

    `solve` by default is least squares, and ridge where rows are too few; `by_groups` asks for errors that need no more
    than sums; `most` is the number of features that may enter. Without `matrices` of the instances in the answer, those
    with weights of their own are solved in turn.
    """
    errors = estimator(sample, loss, by_groups)
    in_turn = not matrices and sample.plan.own_weight and isinstance(errors, LeaveOut)
    if loss.value or sample.plan.interpolates:
        sample.check_memory(in_turn)
    done = first_pass(sample, Totals(loss, intercept, gram=not in_turn), errors)
    if not done.exact:
        raise ValueError(f"n_samples={sample.n} gives no draw here: use more")
    exact = Exact.of(done.exact)
    if done.rows + len(exact.rows) == 0:
        raise ValueError(f"n_samples={sample.n} gives no draw here: use more")
    if loss.gradient and done.rows == 0:
        raise ValueError("gradient matching has no rows here: this draw only has rows to interpolate")
    problem = done.totals.problem()
    check_weights(done, problem, len(exact.rows))
    check_resolution(done, problem)
    shrinks = solve is None and errors.may_shrink
    solve = Quadratic.solve if solve is None else solve
    if too_few(done, problem, exact, most, shrinks):
        rows, sums = independent(done, problem)
        solve = partial(Quadratic.shrink, rows=rows, sums=sums)
    try:
        if in_turn:
            solution, estimate = solved_in_turn(done, solve, exact, problem)
        else:
            solution = solve(problem, exact)
            estimate = errors.estimate(done, solve, exact, problem, solution)
    except UndeterminedError as undetermined:
        advice = sample.advice(2 * (problem.d + intercept))
        raise ValueError(f"{undetermined}; {advice}, or use fewer features (features=)") from undetermined
    error = known(estimate, done.units, sample)
    theta, d = solution.theta, problem.d
    constant = theta[..., d] if intercept else torch.zeros_like(theta[..., 0])
    of_constant, degrees = problem.constant_loss(), estimate.degrees_of_freedom
    fit = Fit(theta[..., :d], constant, error[..., :d], estimate.loss, of_constant, degrees)
    return Minimum(fit, problem, exact, solution.inverse)


def at_a_point(sample: Sample, loss: Loss, intercept: bool) -> Fit:
    """Gradient matching, minimised over a single row ξ: w = ∇f(x_ξ), which is exact."""
    (block,) = sample.blocks()
    shape = len(sample.x), sample.k
    w = torch.empty(*shape, sample.d, dtype=sample.dtype, device=sample.x.device)
    y = w.new_empty(shape)
    for i, _, values, gradient in sample.gradients(block):
        y[i], w[i] = values[..., 0], gradient[:, :, 0]
    constant = y - w @ block.xi[0].to(w) if intercept else torch.zeros_like(y)
    return Fit(w, constant, torch.zeros_like(w), torch.zeros_like(y), loss.gradient * w.square().sum(-1))


def first_pass(sample: Sample, totals: Totals, errors: ErrorEstimator) -> Pass:
    """The model's answers to the whole draw, as sums, and as they are where the errors need them."""
    done, loss = Pass(sample, totals), totals.loss
    for block in sample.blocks():
        X, weight = sample.design(block, totals.intercept), errors.weightings(block, done.units)
        if loss.gradient:
            y = X.new_empty(len(sample.x), sample.k, len(block.xi))
            for i, rows, values, gradient in sample.gradients(block):
                y[i, :, rows] = values
                unit_size = None if rows.start < block.n_fixed else block.unit_size
                turns = {"replicates": block.replicates, "start": done.rows + rows.start}
                totals.add_gradients(len(sample.x), i, weight[..., rows], gradient, unit_size, **turns)
            exact_y = sample.exact_values(block)
        else:
            exact_y, y = sample.values(block)
        totals.add_values(X, weight, y)
        if len(block.exact) or not done.exact:
            done.exact.append(Exact(design(block.exact, totals.intercept, sample.dtype), exact_y.to(sample.dtype)))
        if errors.keeps_outputs:
            done.keep(block, y)
        done.precision = y.dtype
        done.rows += len(block.xi)
        done.units += block.units
        done.unit_size = max(done.unit_size, block.unit_size)
    return done


def check_weights(done: Pass, problem: Quadratic, exact: int) -> None:
    """Refuse weights that leave too little to fit: all zero, or concentrated on fewer rows than unknowns."""
    unknowns = problem.d + problem.intercept - exact
    needed, purpose = unknowns, f"{unknowns} weights"
    if problem.loss.gradient:  # one row gives all weights; for their errors, as many as make a mean normal
        needed = min(MEAN_OF, done.rows // 4)
        purpose = f"a mean gradient, which needs {needed}"
    empty, size = exact == 0 and bool((problem.w <= 0).any()), torch.inf
    if done.all_random and done.rows >= needed:
        assert done.totals.values is not None
        squares = done.totals.values.ww[:, 0]
        size = float((problem.w.square() / squares.clamp_min(torch.finfo(squares.dtype).tiny)).min())
    if empty or size < needed:
        shown = f"{0.0 if empty else size:.3g}"
        shown = f"just under {needed}" if float(shown) >= needed else shown
        raise ValueError(
            f"the draw's weights leave an effective sample size of {shown} for {purpose}; "
            + done.sample.advice(2 * needed)
        )


def check_resolution(done: Pass, problem: Quadratic) -> None:
    """Warn if σ is why f varies over the draw by little more than its round-off (not where f is flat anyway)."""
    sample, sigma = done.sample, done.sample.neighbourhood.spread
    if problem.loss.gradient:
        return
    if sigma is None:
        flat = problem.constant_loss() <= 0
        if bool(flat.any()) and drowns(sample, bool(flat.all())):
            warn(
                f"ξ is so small that x_ξ rounds to x in {sample.x.dtype}, so f cannot vary with it: use larger ξ, x in "
                "float64, or gradient matching"
            )
        return
    size = float(sample.x.abs().amax())
    spread = problem.constant_loss().clamp_min(0).sqrt()
    round_off = 1e3 * torch.finfo(done.precision).eps * (problem.y0.abs() + spread)
    enough = sigma * float((round_off / spread).nanmedian())  # f's differences grow with σ
    enough = enough if enough <= size / 10 else 0.0
    of_x = 1e3 * torch.finfo(sample.x.dtype).eps * size  # x₀ + ξ is rounded, too
    least, where = max((of_x, sample.x.dtype), (enough, done.precision), key=lambda pair: pair[0])
    if sigma < least:
        warn(
            f"sigma={sigma:.3g} is so small that differences of f vanish in {where}: use sigma ≥ {2 * least:.1g}, x "
            "and the model in float64, or vanilla_gradients()"
        )


def drowns(sample: Sample, flat: bool) -> bool:
    """Whether x_ξ rounds to x, and not at a larger ξ: seen on a few rows and instances (f is flat on all)."""
    some, block = slice(0, 4), next(iter(sample.blocks()))
    x, here, xi = sample.x[some], sample.neighbourhood.at(sample.x, some), block.xi[(block.xi != 0).any(-1)][some]

    def moves(xi: Tensor) -> bool:
        placed = here.placed(x, xi)
        return not bool((placed == x.reshape(len(x), *[1] * (placed.ndim - x.ndim), *x.shape[1:])).all())

    least = torch.finfo(x.dtype).eps * float(x.abs().amax())
    lost = (
        flat and len(xi) > 0 and float(block.xi.abs().amax()) < least
    )  # an entry of x that is 0 moves, and f does not
    return len(xi) > 0 and (lost or not moves(xi)) and not moves(0 * xi) and moves(2.0**60 * xi)


def independent(done: Pass, problem: Quadratic) -> tuple[float, PairSums | None]:
    """How many rows tell of θ by themselves, and the sums of pairs that do so by their differences (of instances that
    are solved together)."""

    def pieces() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for block, y in zip(done.sample.blocks(), done.outputs, strict=True):
            if block.units:
                X = done.sample.design(block, problem.intercept)
                yield X[block.n_fixed :], block.weight[:, block.n_fixed :], y[..., block.n_fixed :]

    sums = PairSums.of(pieces(), problem.y0) if done.unit_size == 2 and problem.xx is not None else None
    return (done.rows / done.unit_size, None) if sums is None else (float(done.rows - done.units), sums)


def too_few(done: Pass, problem: Quadratic, exact: Exact, most: int | None, shrinks: bool) -> bool:
    """Warn below twice the rows that determine the weights; whether to shrink there (ridge by cross-validation)."""
    if problem.loss.gradient or done.units == 0:
        return False
    unknowns = min(most or problem.d, problem.d) + problem.intercept
    if done.rows >= 2 * done.unit_size * unknowns:
        return False
    rank = int(torch.linalg.matrix_rank(exact.rows)) if len(exact.rows) else 0
    needed = done.unit_size * (unknowns - rank)
    if done.rows >= 2 * needed or done.rows - done.units * done.unit_size >= needed:
        return False
    how = "The fit is shrunk (ridge by generalised cross-validation) and its standard errors are unknown: NaN. "
    enough = 3 * needed + len(exact.rows)  # at twice, a weight may rest on one pair of masks
    warn(
        f"n_samples is small: {done.rows} rows for weights that {needed} would just determine. {how * shrinks}Use "
        f"n_samples ≥ {enough}, or fewer features"
    )
    return shrinks
