"""Every part goes through one contract, against one slow and obvious oracle: all rows written out, numpy's lstsq.

The oracle knows nothing of the engine: it asks the neighbourhood for its draw, loops over instances and scores, takes
gradients by autograd through `place`, sums the rows one by one, meets rows of infinite weight by Lagrange multipliers,
and (for errors) refits without each unit.
"""

import itertools
import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import optimize

import locapprox as lx
from locapprox.fit.seeds import generator

D = 6
LABELS = torch.tensor([0, 0, 1, 2, 2, 3])


def additive(distribution):
    return lambda x: lx.Additive(distribution)


def multiplicative(distribution, **settings):
    return lambda x: lx.Multiplicative(distribution, **settings)


def sample(x):
    return torch.linspace(-1, 1, 3 * x[0].numel(), dtype=x.dtype).reshape(3, *x.shape[1:])


def groups(x):
    return torch.stack([LABELS.roll(i) for i in range(len(x))]).reshape(x.shape)


def cloud(x):
    rng = torch.Generator().manual_seed(7)
    return x[:1] + 0.5 * torch.randn(60, *x.shape[1:], generator=rng, dtype=torch.float64).to(x)


NEIGHBOURHOODS = {
    "normal": additive(lx.Normal(0.3)),
    "normal per entry": additive(lx.Normal(torch.linspace(0.1, 0.5, D))),
    "antithetic": additive(lx.Normal(0.3, antithetic=True)),
    "sobol": additive(lx.Normal(0.3, sobol=True)),
    "normal, kernel in xi": lambda x: lx.Additive(lx.Normal(0.5), kernel=lx.ExponentialKernel(4.0, "xi")),
    "correlated": additive(lx.CorrelatedNormal(0.1 * torch.eye(D) + 0.02)),
    "fair masks": multiplicative(lx.FairMasks()),
    "LIME in x": multiplicative(lx.FairMasks(), kernel=lx.ExponentialKernel(4.0)),
    "LIME in xi": multiplicative(lx.FairMasks(), baseline=0.2, kernel=lx.ExponentialKernel(4.0, "xi")),
    "LIME, background": lambda x: lx.Multiplicative(
        lx.FairMasks(), lx.Background(sample(x)), kernel=lx.ExponentialKernel(4.0)
    ),
    "masks of groups": lambda x: lx.Multiplicative(lx.FairMasks(), 0.1, LABELS.reshape(x.shape[1:])),
    "Shapley": multiplicative(lx.ShapleyMasks()),
    "Shapley, background": lambda x: lx.Multiplicative(lx.ShapleyMasks(), lx.Background(sample(x))),
    "Shapley, baseline of x": multiplicative(lx.ShapleyMasks(), baseline=lambda x: x.flip(-1) / 2),
    "Shapley, a baseline for each": lambda x: lx.Multiplicative(lx.ShapleyMasks(), x.flip(0) / 2),
    "LIME, a baseline for each": lambda x: lx.Multiplicative(
        lx.FairMasks(), x.flip(0) / 2, None, lx.ExponentialKernel(4.0)
    ),
    "groups of each": lambda x: lx.Multiplicative(lx.FairMasks(), 0.1, groups(x)),
    "all coalitions": multiplicative(lx.AllCoalitions()),
    "leave one out": multiplicative(lx.LeaveOneOut()),
    "one number": multiplicative(lx.Uniform(0.2, 1.0)),
    "quadrature": multiplicative(lx.GaussLegendre()),
    "nested quadrature": multiplicative(lx.Fejer()),
    "point": multiplicative(lx.PointMass(1.0)),
    "point at x": additive(lx.PointMass(0.0)),
    "nearest": lambda x: lx.NearestPoints(cloud(x), 40),
    "lime tabular": lambda x: lx.LimeTabular(x.mean(0), torch.full_like(x[0], 0.4), width=6.0),
    "lime tabular, around x": lambda x: lx.LimeTabular(x.mean(0), torch.full_like(x[0], 0.4), 6.0, True),
}
LOSSES = {
    "values": lx.SquaredError(),
    "gradients": lx.GradientMatching(),
    "both": 2.0 * lx.SquaredError() + 0.3 * lx.GradientMatching(),
}
ONE_DIRECTION = (
    "one number",
    "quadrature",
    "nested quadrature",
    "point",
    "point at x",
)  # values there determine no linear surrogate


class Model(torch.nn.Module):
    """Three smooth outputs between 0 and 1 of flattened inputs."""

    def __init__(self, dtype):
        super().__init__()
        rng = torch.Generator().manual_seed(5)
        self.a = torch.randn(D, 8, generator=rng, dtype=torch.float64).to(dtype) / 2
        self.b = torch.randn(8, 3, generator=rng, dtype=torch.float64).to(dtype)
        self.eval()

    def forward(self, x):
        return torch.sigmoid(torch.tanh(x.flatten(1) @ self.a) @ self.b)


class Rows:
    """The oracle's rows of one instance and score, in float64."""

    def __init__(self, model, neighbourhood, x, i, score, n, seed, gradients):
        one = x[i : i + 1]
        rng = generator(seed, neighbourhood, "fit", x)
        per_instance = neighbourhood.draw(one, n, generator(seed, neighbourhood, "fit", x)).xi.ndim == 3
        draws = list(neighbourhood.blocks(one if per_instance else x, n, rng))
        xi = torch.cat([d.xi[0] if d.xi.ndim == 3 else d.xi for d in draws])
        weight = torch.cat([d.weight if d.weight.ndim == 1 else d.weight[0 if per_instance else i] for d in draws])
        self.unit, self.fixed = draws[-1].unit_size, sum(d.n_fixed for d in draws)
        leaf = xi.clone().requires_grad_()
        placed = neighbourhood.place(x, leaf)[i]  # all instances, one of which is looked at
        inside = placed.shape[1 : placed.ndim - x.ndim + 1]
        out = model(placed.reshape(-1, *x.shape[1:]))[:, score].reshape(len(xi), *inside)
        y = out.flatten(1).mean(1) if inside else out
        slopes = torch.autograd.grad(y.sum(), leaf)[0] if gradients else None
        weight = weight.double().numpy()
        self.exact = np.isinf(weight)
        self.xi, self.y, self.weight = xi.double().numpy(), y.detach().double().numpy(), weight
        self.g = slopes.double().numpy() if gradients else None


def least_squares(rows, keep, loss, intercept, weight=None):
    """θ of the stacked system over the rows `keep`, with the exact rows by Lagrange multipliers."""
    w = rows.weight if weight is None else weight
    d = rows.xi.shape[1]
    X = np.c_[rows.xi, np.ones(len(rows.xi))] if intercept else rows.xi
    A, b = np.zeros((X.shape[1], X.shape[1])), np.zeros(X.shape[1])
    for r in keep:
        if loss.value:
            A += loss.value * w[r] * np.outer(X[r], X[r])
            b += loss.value * w[r] * X[r] * rows.y[r]
        if loss.gradient:
            A[:d, :d] += loss.gradient * w[r] * np.eye(d)
            b[:d] += loss.gradient * w[r] * rows.g[r]
    C, c = X[rows.exact], rows.y[rows.exact]
    if loss.value == 0 and intercept and len(C) == 0:
        mean = np.average(rows.g[keep], axis=0, weights=w[keep])
        rest = np.average(rows.y[keep] - rows.xi[keep] @ mean, weights=w[keep])
        return np.r_[mean, rest]
    e = len(C)
    full = np.block([[A, C.T], [C, np.zeros((e, e))]])
    return np.linalg.lstsq(full, np.r_[b, c], rcond=1e-14)[0][: X.shape[1]]


def loss_at(rows, theta, r, loss, intercept):
    d = rows.xi.shape[1]
    fitted = rows.xi[r] @ theta[:d] + (theta[d] if intercept else 0.0)
    total = loss.value * (rows.y[r] - fitted) ** 2
    return total + (loss.gradient * ((rows.g[r] - theta[:d]) ** 2).sum() if loss.gradient else 0.0)


def inputs(shape, b, dtype):
    return (torch.linspace(-1.2, 1.5, b * D).sin() + 1.3).reshape(b, *shape).to(dtype)


SHAPES = {"vector": (D,), "image": (1, 2, 3)}


def check_one(name, loss_name, intercept, target, shape, dtype, batch_size, n, seed):
    x = inputs(SHAPES[shape], 3, dtype)
    if name == "normal per entry" and shape == "image":
        shape = "vector"
        x = inputs(SHAPES[shape], 3, dtype)
    neighbourhood, loss, model = NEIGHBOURHOODS[name](x), LOSSES[loss_name], Model(dtype)
    if loss_name == "values" and name in ONE_DIRECTION:
        return
    scores = {"one": [1], "per instance": None, "several": [0, 1, 2]}[target]
    passed = {"one": 1, "per instance": [0, 2, 1], "several": range(3)}[target]
    method = lx.Method("contract", neighbourhood, loss, lx.Linear(intercept))
    infeasible = not intercept and name.startswith(("Shapley", "leave"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if infeasible and name.startswith("Shapley"):
            with pytest.raises(ValueError, match="cannot all be interpolated"):
                lx.explain(
                    model, x, method, n_samples=n, target=passed, seed=seed, batch_size=batch_size, progress=False
                )
            return
        e = lx.explain(model, x, method, n_samples=n, target=passed, seed=seed, batch_size=batch_size, progress=False)
    tolerance = 2e-8 if dtype == torch.float64 else 3e-4
    for i in range(3):
        for j, score in enumerate(scores or [[0, 2, 1][i]]):
            rows = Rows(model, neighbourhood, x, i, score, n, seed, bool(loss.gradient))
            finite = np.flatnonzero(~rows.exact)
            theta = least_squares(rows, finite, loss, intercept)
            d = rows.xi.shape[1]
            got = e.weights[i].flatten(1)[j] if target == "several" else e.weights[i].flatten()
            got_loss = e.loss[i, j] if target == "several" else e.loss[i]
            scale = max(1.0, np.abs(theta[:d]).max())
            np.testing.assert_allclose(got.numpy(), theta[:d], atol=tolerance * scale)
            weighted = [rows.weight[r] * loss_at(rows, theta, r, loss, intercept) for r in finite]
            in_sample = sum(weighted) / rows.weight[finite].sum()
            assert float(got_loss) >= in_sample * (1 - 1e-3) - tolerance  # leaving out never flatters
            if rows.fixed == len(rows.xi):
                np.testing.assert_allclose(float(got_loss), in_sample, rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NEIGHBOURHOODS)
def test_every_neighbourhood_under_every_loss(name, loss):
    check_one(name, loss, True, "one", "vector", torch.float64, None, 60, 0)


combinations = st.tuples(
    st.sampled_from(sorted(NEIGHBOURHOODS)),
    st.sampled_from(sorted(LOSSES)),
    st.booleans(),
    st.sampled_from(["one", "per instance", "several"]),
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from([torch.float64, torch.float32]),
    st.sampled_from([None, 1, 7, 64, 1000]),
    st.integers(30, 70),
    st.integers(0, 2**31),
)


def property_test(examples):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(combinations)
    def run(combination):
        check_one(*combination)

    return run


def test_random_combinations():
    property_test(40)()


@pytest.mark.slow
def test_random_combinations_by_the_thousand():
    property_test(int(os.environ.get("LOCAPPROX_EXAMPLES", "10000")))()


@pytest.mark.parametrize("name", NEIGHBOURHOODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_neighbourhood_keeps_its_contract(name, shape):
    x = inputs(SHAPES[shape], 3, torch.float64)
    if name != "normal per entry" or shape == "vector":
        lx.check_neighbourhood(NEIGHBOURHOODS[name](x), x)


COUNT = itertools.count()


class Noise:
    """A neighbourhood as a user writes one, which keeps its contract; below, ways to break it."""

    def draw(self, x, n, rng):
        xi = torch.randn(n, x[0].numel(), generator=rng, dtype=x.dtype)
        return lx.Draw(xi, torch.ones(n, dtype=torch.float64))

    def place(self, x, xi):
        return x.unsqueeze(1) + xi.reshape(*xi.shape[:-1], *x.shape[1:])


def noise(base=Noise, **methods):
    return type("Noise", (base,), methods)()


def remade(draw, **parts):
    return lx.Draw(**{"xi": draw.xi, "weight": draw.weight} | parts)


def fewer(part):
    """A method of `Noise` whose draw is changed."""
    return lambda self, x, n, rng: part(Noise().draw(x, n, rng), x)


BROKEN_NEIGHBOURHOODS = {
    "weights must not be negative or NaN": noise(draw=fewer(lambda d, x: remade(d, weight=-d.weight))),
    "weights of an instance must not all be zero": noise(draw=fewer(lambda d, x: remade(d, weight=0 * d.weight))),
    "xi must not be NaN or infinite": noise(draw=fewer(lambda d, x: remade(d, xi=d.xi / 0))),
    r"weight \(2, 64\)": noise(draw=fewer(lambda d, x: remade(d, weight=d.weight.expand(2, -1)))),
    r"for 3 instances needs .*; got xi \(2, 64, 6\)": noise(
        draw=fewer(lambda d, x: remade(d, xi=d.xi.expand(2, -1, -1)))
    ),
    "units of 3": noise(draw=fewer(lambda d, x: remade(d, unit_size=3))),
    "asked for 64 rows and gave 65": noise(
        draw=lambda self, x, n, rng: Noise().draw(x, n + 1, rng),
    ),
    "same generator seed": noise(
        draw=lambda self, x, n, rng: Noise().draw(x, n, torch.Generator().manual_seed(next(COUNT)))
    ),
    "a second draw from one generator must be fresh": noise(
        draw=lambda self, x, n, rng: Noise().draw(x, n, torch.Generator().manual_seed(0))
    ),
    "weights must not shrink as n grows": noise(draw=fewer(lambda d, x: remade(d, weight=d.weight / len(d.weight)))),
    "partly fixed must see its whole budget": noise(
        draw=fewer(lambda d, x: remade(d, xi=torch.cat([0 * d.xi[:4], d.xi[4:]]), n_fixed=4))
    ),
    "n_fixed=4 rows must not change with the seed": noise(draw=fewer(lambda d, x: remade(d, n_fixed=4))),
    "n_fixed=64 rows must not change with the seed": noise(draw=fewer(lambda d, x: remade(d, n_fixed=len(d.xi)))),
    "n_fixed must be a whole number ≥ 0, got -1": noise(draw=fewer(lambda d, x: remade(d, n_fixed=-1))),
    "cannot have n_fixed=65": noise(draw=fewer(lambda d, x: remade(d, n_fixed=65))),
    "unit_size must be a whole number ≥ 1, got 0": noise(draw=fewer(lambda d, x: remade(d, unit_size=0))),
    "Noise.draw must return lx.Draw": noise(draw=lambda self, x, n, rng: Noise().draw(x, n, rng).xi),
    "Noise.draw failed: KeyError: 'boom'": noise(draw=lambda self, x, n, rng: {}["boom"]),
    "Noise.place failed: KeyError: 'boom'": noise(place=lambda self, x, xi: {}["boom"]),
    "Noise.place must return a tensor": noise(place=lambda self, x, xi: xi.numpy()),
    "must not depend on x": noise(draw=fewer(lambda d, x: remade(d, xi=d.xi * x.abs().mean()))),
    "the global random state": noise(
        draw=lambda self, x, n, rng: (torch.rand(1), Noise().draw(x, n, rng))[1],
    ),
    "must not change x": noise(draw=lambda self, x, n, rng: Noise().draw(x.add_(1e-3), n, rng)),
    r"every row of ξ, \(3, 4, 6\), got \(3, 4, 5\)": noise(place=lambda self, x, xi: Noise().place(x, xi)[:, :, :5]),
    "must not change ξ": noise(place=lambda self, x, xi: Noise().place(x, xi.mul_(2) if not xi.requires_grad else xi)),
    r"the same for ξ \(n, d\) and \(b, n, d\)": noise(
        place=lambda self, x, xi: Noise().place(x, xi) + (xi.ndim == 3),
    ),
    "keep x's dtype": noise(place=lambda self, x, xi: Noise().place(x, xi).float()),
    "mix instances": noise(place=lambda self, x, xi: Noise().place(x, xi) + x.mean()),
    "mix rows": noise(place=lambda self, x, xi: Noise().place(x, xi) + xi.mean()),
    "differentiable in ξ": noise(place=lambda self, x, xi: Noise().place(x, xi.detach())),
    "interpolates = False, but a weight is infinite": type(
        "Own",
        (Noise, lx.BaseNeighbourhood),
        {"interpolates": False, "draw": fewer(lambda d, x: remade(d, weight=d.weight / 0))},
    )(),
}


@pytest.mark.parametrize("clause", BROKEN_NEIGHBOURHOODS)
def test_a_neighbourhood_that_breaks_a_clause_is_told_which(clause):
    x = inputs((D,), 3, torch.float64)
    lx.check_neighbourhood(Noise(), x)
    with pytest.raises(ValueError, match=f"^the neighbourhood breaks its contract: .*{clause}"):
        lx.check_neighbourhood(BROKEN_NEIGHBOURHOODS[clause], x)


@pytest.mark.parametrize("whole", ["weights must not shrink", "a second draw from one", "partly fixed"])
def test_what_sees_its_whole_budget_may(whole):
    """A quadrature's weights are 1 / n, its draw the same each time, some of its rows fixed."""
    own = next(part for clause, part in BROKEN_NEIGHBOURHOODS.items() if whole in clause)
    mine = type("Own", (type(own), lx.BaseNeighbourhood), {"draws_at_once": True})()
    lx.check_neighbourhood(mine, inputs((D,), 3, torch.float64))


class Coin:
    """A distribution as a user writes one."""

    def draw(self, d, n, rng, dtype):
        xi = torch.randint(0, 2, (n, d), generator=rng).to(dtype)
        return lx.Draw(xi, torch.ones(n, dtype=torch.float64))


BROKEN_DISTRIBUTIONS = {
    "must have the dtype torch.float32, got torch.float64": {
        "draw": lambda self, d, n, rng, dtype: Coin().draw(d, n, rng, torch.float64)
    },
    "must have d = 5 columns, got 4": {"draw": lambda self, d, n, rng, dtype: Coin().draw(d - 1, n, rng, dtype)},
    "asked for 64 rows and gave 128": {"draw": lambda self, d, n, rng, dtype: Coin().draw(d, 2 * n, rng, dtype)},
    "same generator seed": {
        "draw": lambda self, d, n, rng, dtype: Coin().draw(d, n, torch.Generator().manual_seed(next(COUNT)), dtype)
    },
    "global random state": {
        "draw": lambda self, d, n, rng, dtype: (np.random.rand(), Coin().draw(d, n, rng, dtype))[1]  # noqa: NPY002
    },
}


@pytest.mark.parametrize("clause", BROKEN_DISTRIBUTIONS)
def test_a_distribution_that_breaks_a_clause_is_told_which(clause):
    lx.check_distribution(Coin())
    with pytest.raises(ValueError, match=f"^the distribution breaks its contract: .*{clause}"):
        lx.check_distribution(type("Coin", (Coin,), BROKEN_DISTRIBUTIONS[clause])())


DISTRIBUTIONS = [
    lx.Normal(0.3),
    lx.Normal(torch.linspace(0.1, 0.5, 5), antithetic=True),
    lx.Normal(0.3, sobol=True),
    lx.CorrelatedNormal(torch.eye(5) + 0.1),
    lx.Uniform(),
    lx.GaussLegendre(),
    lx.Fejer(),
    lx.PointMass(1.0),
    lx.FairMasks(),
    lx.ShapleyMasks(),
    lx.AllCoalitions(),
    lx.LeaveOneOut(),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_every_distribution_keeps_its_contract(distribution):
    for n in (63, 64, 2000):
        lx.check_distribution(distribution, n=n)


class Plain:
    """A surrogate as a user writes one: weighted least squares from the sample's blocks and values."""

    blocks = staticmethod(list)
    weighs = met = True

    def fit(self, sample, loss):
        blocks = self.blocks(sample.blocks())
        if loss.gradient or (self.met and len(blocks[0].exact)):
            raise ValueError("Plain needs values, and interpolates nothing")
        X = torch.cat([sample.design(block, True) for block in blocks])
        y = torch.cat([sample.values(block)[1] for block in blocks], -1)  # (b, k, n)
        w = torch.cat([block.weight for block in blocks], -1)[:, None].expand_as(y)
        w = w if self.weighs else torch.ones_like(w)
        theta = torch.linalg.solve(X.mT @ (w[..., None] * X), ((w * y) @ X)[..., None])[..., 0]
        mean = (w * y).sum(-1, keepdim=True) / w.sum(-1, keepdim=True)
        loss, constant = (((w * r.square()).sum(-1) / w.sum(-1)) for r in (y - theta @ X.mT, y - mean))
        return lx.Fit(theta[..., :-1], theta[..., -1], torch.full_like(theta[..., :-1], torch.nan), loss, constant)


def changed(**parts):
    """`Plain` with parts of its fit put through a function."""

    def fit(self, sample, loss):
        one = Plain().fit(sample, loss)
        return replace(one, **{name: change(getattr(one, name)) for name, change in parts.items()})

    return type("Plain", (Plain,), {"fit": fit})()


BROKEN_SURROGATES = {
    r"weights must be \(3, 2, 4\), got \(3, 2, 3\)": changed(
        weights=lambda w: w[..., :3], standard_error=lambda e: e[..., :3]
    ),
    "loss must be torch.float64, got torch.float32": changed(loss=lambda part: part.float()),
    "weights are finite": changed(intercept=lambda part: part / 0),
    "standard_error must not be negative": changed(standard_error=lambda e: e.nan_to_num(-1.0)),
    "the same sample must give the same fit": changed(weights=lambda w: w + next(COUNT)),
    "an instance alone must be fitted as among others": changed(weights=lambda w: w + w.mean() * (len(w) > 1)),
    "the global random state": changed(weights=lambda w: w + 0 * torch.rand(1)),
    "the weighted variance of f": changed(constant_loss=lambda part: part * 1.01),
    "constant_loss must be": type("Plain", (Plain,), {"weighs": False})(),
    "constant_loss must": type("Plain", (Plain,), {"blocks": staticmethod(lambda blocks: [next(blocks)])})(),
    "rows to interpolate": type("Plain", (Plain,), {"met": False})(),
}


@pytest.mark.parametrize("clause", BROKEN_SURROGATES)
def test_a_surrogate_that_breaks_a_clause_is_told_which(clause):
    with pytest.raises(ValueError, match=f"^the surrogate (Plain )?breaks its contract: .*{clause}"):
        lx.check_surrogate(BROKEN_SURROGATES[clause])


SURROGATES = [
    Plain(),
    lx.Linear(),
    lx.Linear(intercept=False),
    lx.Sparse(2),
    lx.Sparse(9),
    lx.Constrained(lambda w, intercept: [w <= 0.1]),
    lx.Logistic(),
    lx.Logistic(intercept=False),
]


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_every_surrogate_keeps_its_contract(surrogate):
    lx.check_surrogate(surrogate)


def test_a_surrogate_of_ones_own_is_used():
    x, model = inputs((D,), 3, torch.float64), Model(torch.float64)
    where = lx.Additive(lx.Normal(0.3))
    mine, ours = (
        lx.explain(
            model, x, lx.Method("", where, lx.SquaredError(), s), n_samples=2000, target=range(3), progress=False
        )
        for s in (Plain(), lx.Linear())
    )
    torch.testing.assert_close(mine.weights, ours.weights, rtol=0, atol=1e-11)
    torch.testing.assert_close(mine.predict(x), ours.predict(x), rtol=0, atol=1e-11)
    assert mine.standard_error.isnan().all()
    assert mine.degrees_of_freedom.tolist() == [np.inf] * 3  # it says nothing of them


ERRORS = {  # whose standard error is a sum of squares of the changes δ when each unit is left out, times √ρ
    "single rows": ("LIME in x", "values", False),
    "single rows of noise": ("normal", "values", False),
    "pairs": ("antithetic", "values", False),
    "jackknife over pairs": ("Shapley", "values", True),
}


def rho(rows, unit, theta, without, differences):
    """rᵀWe / eᵀWe of a unit's residuals under the fit of all rows and without it; of a pair's difference, if only that
    moves θ."""
    X = np.c_[rows.xi[unit], np.ones(len(unit))]
    r, e = (rows.y[unit] - X @ fit for fit in (theta, without))
    r, e = (a[:1] - a[1:] if differences else a for a in (r, e))
    weight = rows.weight[unit][: len(r)]
    return (weight * r * e).sum() / (weight * e * e).sum()


@pytest.mark.usefixtures("errors_as_they_are")
@pytest.mark.parametrize("case", ERRORS)
def test_standard_errors_are_those_of_refits(case):
    name, loss_name, centred = ERRORS[case]
    x = inputs((D,), 3, torch.float64)
    n = 40
    neighbourhood, loss, model = NEIGHBOURHOODS[name](x), LOSSES[loss_name], Model(torch.float64)
    e = lx.explain(model, x, lx.Method("contract", neighbourhood, loss), n_samples=n, target=0, progress=False)
    for i in range(3):
        rows = Rows(model, neighbourhood, x, i, 0, n, 0, False)
        finite = np.flatnonzero(~rows.exact)
        theta = least_squares(rows, finite, loss, True)
        units = np.arange(rows.fixed, len(rows.xi)).reshape(-1, rows.unit)
        fits = [least_squares(rows, np.setdiff1d(finite, unit), loss, True) for unit in units]
        kept = [rho(rows, unit, theta, fit, centred) ** 0.25 for unit, fit in zip(units, fits, strict=True)]
        shift = np.array(kept)[:, None] * (theta - np.array(fits))
        square = (shift**2).sum(0)
        if centred:
            m = len(units)
            square = (square - shift.sum(0) ** 2 / m) * (m - 1) / m
        np.testing.assert_allclose(e.standard_error[i].numpy(), np.sqrt(square[:-1]), rtol=1e-6)
        out = []  # and the loss is that of every unit under the fit without it
        for unit, without in zip(units, fits, strict=True):
            out += [rows.weight[r] * loss_at(rows, without, r, loss, True) for r in unit]
        fixed = np.setdiff1d(finite, units)
        out += [rows.weight[r] * loss_at(rows, theta, r, loss, True) for r in fixed]
        np.testing.assert_allclose(float(e.loss[i]), sum(out) / rows.weight[finite].sum(), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["normal", "LIME in x", "Shapley", "quadrature", "antithetic"])
def test_the_logistic_surrogate_minimises_the_stated_loss(name, loss):
    """Against scipy's BFGS on the loss written out; rows to interpolate as a penalty-free change of variables."""
    if loss == "values" and name in ONE_DIRECTION:
        return
    x = inputs((D,), 2, torch.float64)
    neighbourhood, model, n = NEIGHBOURHOODS[name](x), Model(torch.float64), 60
    method = lx.Method("logistic", neighbourhood, LOSSES[loss], lx.Logistic())
    e = lx.explain(model, x, method, n_samples=n, target=1, progress=False)
    rows = Rows(model, neighbourhood, x, 0, 1, n, 0, True)
    X, w = np.c_[rows.xi, np.ones(len(rows.xi))], np.where(rows.exact, 0, rows.weight)
    C, c = X[rows.exact], np.log(rows.y[rows.exact] / (1 - rows.y[rows.exact]))
    base = np.linalg.lstsq(C, c, rcond=None)[0] if len(C) else np.zeros(D + 1)
    null = np.linalg.svd(C)[2][len(C) :].T if len(C) else np.eye(D + 1)

    def objective(u):
        theta = base + null @ u
        s = 1 / (1 + np.exp(-X @ theta))
        value = LOSSES[loss].value * (rows.y - s) ** 2
        slope = LOSSES[loss].gradient * ((rows.g - (s * (1 - s))[:, None] * theta[:D]) ** 2).sum(1)
        return (w * (value + slope)).sum() / w.sum()

    best = optimize.minimize(objective, np.zeros(null.shape[1]), method="BFGS", options={"gtol": 1e-10})
    theta = base + null @ best.x
    fitted = np.r_[e.weights[0].numpy(), float(e.intercept[0])]
    assert objective(null.T @ (fitted - base)) <= best.fun * (1 + 1e-9) + 1e-16
    np.testing.assert_allclose(fitted[:D], theta[:D], atol=2e-3 * max(1, np.abs(theta).max()))


def test_the_sparse_surrogate_is_least_squares_on_its_features():
    x = inputs((D,), 3, torch.float64)
    model, loss = Model(torch.float64), lx.SquaredError()
    for name in ("normal", "Shapley", "LIME in x"):
        neighbourhood = NEIGHBOURHOODS[name](x)
        e = lx.explain(
            model, x, lx.Method("sparse", neighbourhood, loss, lx.Sparse(3)), n_samples=50, target=0, progress=False
        )
        assert bool(((e.weights != 0).sum(1) <= 3).all())
        for i in range(3):
            rows = Rows(model, neighbourhood, x, i, 0, 50, 0, False)
            finite, chosen = np.flatnonzero(~rows.exact), e.weights[i].numpy() != 0
            rows.xi = rows.xi[:, chosen]
            theta = least_squares(rows, finite, loss, True)
            np.testing.assert_allclose(e.weights[i].numpy()[chosen], theta[:-1], atol=1e-9)


def test_the_sparse_surrogate_of_gradients_keeps_the_largest():
    x = inputs((D,), 3, torch.float64)
    model = Model(torch.float64)
    full = lx.explain(model, x, lx.smoothgrad(0.3, sobol=False), n_samples=50, target=0, progress=False)
    method = lx.Method("sparse", lx.Additive(lx.Normal(0.3)), lx.GradientMatching(), lx.Sparse(2))
    e = lx.explain(model, x, method, n_samples=50, target=0, progress=False)
    for i in range(3):
        largest = full.weights[i].abs().argsort(descending=True)[:2]
        expected = torch.zeros(D, dtype=torch.float64)
        expected[largest] = full.weights[i][largest]
        torch.testing.assert_close(e.weights[i], expected)


def test_the_sparse_path_finds_the_features_of_a_sparse_function():
    model = lambda rows: 3 * rows[:, 1] - 2 * rows[:, 4]  # noqa: E731
    x = inputs((D,), 2, torch.float64)
    for neighbourhood in (lx.Additive(lx.Normal(0.3)), lx.Multiplicative(lx.FairMasks())):
        e = lx.explain(
            model, x, lx.Method("s", neighbourhood, lx.SquaredError(), lx.Sparse(2)), n_samples=200, progress=False
        )
        assert (e.weights != 0).nonzero()[:, 1].tolist() == [1, 4, 1, 4]


@pytest.mark.parametrize("name", ["normal", "Shapley"])
def test_the_constrained_surrogate_satisfies_the_kkt_conditions(name):
    """With w ≤ t: gradient 0 where the bound is slack, of the right sign where it is active (after the exact rows)."""
    x = inputs((D,), 2, torch.float64)
    model, bound = Model(torch.float64), 0.05
    neighbourhood = NEIGHBOURHOODS[name](x)
    free = lx.explain(
        model, x, lx.Method("c", neighbourhood, lx.SquaredError()), n_samples=60, target=0, progress=False
    )
    assert float(free.weights.max()) > bound  # else the constraint says nothing
    surrogate = lx.Constrained(lambda w, intercept: [w <= bound])
    method = lx.Method("c", neighbourhood, lx.SquaredError(), surrogate)
    e = lx.explain(model, x, method, n_samples=60, target=0, progress=False)
    for i in range(2):
        rows = Rows(model, neighbourhood, x, i, 0, 60, 0, False)
        finite = np.flatnonzero(~rows.exact)
        X, w = np.c_[rows.xi, np.ones(len(rows.xi))], rows.weight
        theta = np.r_[e.weights[i].numpy(), float(e.intercept[i])]
        pull = ((w[finite] * (X[finite] @ theta - rows.y[finite]))[:, None] * X[finite]).sum(0) / w[finite].sum()
        if rows.exact.any():  # multipliers of the exact rows, from the slack coordinates
            np.testing.assert_allclose(X[rows.exact] @ theta, rows.y[rows.exact], atol=1e-9)
            slack = np.r_[theta[:-1] < bound - 1e-5, True]
            pull -= X[rows.exact].T @ np.linalg.lstsq(X[rows.exact].T[slack], pull[slack], rcond=None)[0]
        active = theta[:-1] > bound - 1e-5
        assert active.any() or float(free.weights[i].max()) <= bound
        np.testing.assert_allclose(pull[:-1][~active], 0, atol=1e-5)
        assert (pull[:-1][active] <= 1e-5).all()
        assert (theta[:-1] <= bound + 1e-6).all()
