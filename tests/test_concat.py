"""Explanations of parts, made by methods that are equal by value and not the same objects, as one."""

import numpy as np
import pytest
import torch

import locapprox as lx

F64, N = torch.float64, 60
DATA = torch.randn(40, 6, generator=torch.Generator().manual_seed(7), dtype=F64)


class Sphere:
    """A user's."""

    def draw(self, x, n, rng):
        z = torch.randn(n, x[0].numel(), generator=rng, dtype=x.dtype)
        return lx.Draw(0.5 * z / z.norm(dim=1, keepdim=True), torch.ones(n))

    def place(self, x, xi):
        return x[:, None] + xi


class Ellipse(Sphere, lx.BaseNeighbourhood):
    """A user's that derives from the library's, without a word on how its own are joined."""


def half(x):
    return x / 2


def squares(neighbourhood, surrogate=lx.Linear()):  # noqa: B008 (frozen)
    return lx.Method("mine", neighbourhood, lx.SquaredError(), surrogate)


def masks(**settings):
    return squares(lx.Multiplicative(lx.FairMasks(), **settings))


SPHERE = Sphere()
MADE = {  # each called for every part anew
    "sigma": lambda: lx.c_lime(torch.linspace(0.1, 0.6, 6)),
    "baseline": lambda: lx.kernel_shap(np.linspace(-1, 1, 6)),
    "background": lambda: masks(baseline=lx.Background(DATA[:3].clone())),
    "function": lambda: masks(baseline=half),
    "features": lambda: masks(features=[0, 1, 1, 2, 0, 2]),
    "kernel": lambda: lx.lime(4.0, features=torch.tensor([0, 1, 1, 2, 0, 2])),
    "covariance": lambda: squares(lx.Additive(lx.CorrelatedNormal.of_data(DATA, 0.5))),
    "points": lambda: squares(lx.NearestPoints(DATA.clone(), 20)),
    "lime": lambda: squares(lx.LimeTabular.of_data(DATA.clone(), around_instance=True)),
    "sparse": lambda: squares(lx.Additive(lx.Normal(0.3)), lx.Sparse(2)),
    "user's": lambda: squares(SPHERE),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("target", [1, [2, 0, 1, 1, 0], range(3)], ids=["one", "of each", "several"])
def test_parts_explained_apart_are_the_whole(three_outputs, x, name, target):
    def explained(rows):
        own = target[rows] if isinstance(target, list) else target
        return lx.explain(three_outputs, x[rows], MADE[name](), n_samples=N, target=own)

    whole, joined = explained(slice(0, 5)), lx.concat([explained(slice(0, 2)), explained(slice(2, 5))])
    for part in ("weights", "intercept", "standard_error", "loss", "r2", "degrees_of_freedom", "n_samples", "x"):
        torch.testing.assert_close(getattr(joined, part), getattr(whole, part), rtol=1e-8, atol=1e-11, equal_nan=True)
    for e in (joined, lx.concat([whole[:1], whole[1:]])):
        torch.testing.assert_close(e.predict(DATA[:5]), whole.predict(DATA[:5]), rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(e.validate(40), whole.validate(40), rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(e[[4, 1]].validate(40), whole.validate(40)[[4, 1]], rtol=1e-8, atol=1e-11)
        for i in (0, 4):
            torch.testing.assert_close(e.points(i, 20)[1], whole.points(i, 20)[1])
    if not isinstance(target, range):
        table = lx.faithfulness(three_outputs, x, {"whole": whole, "joined": joined}, lx.c_lime(), target=target).table
        error = table.pivot_table(index="instance", columns="method", values="error")
        np.testing.assert_allclose(error["joined"], error["whole"], rtol=1e-8)


DIFFERENT = {
    "sigma": (lx.c_lime(0.1), lx.c_lime(0.2), "neighbourhoods"),
    "sigma of one entry": (lx.c_lime(torch.ones(6)), lx.c_lime(torch.tensor([1.0] * 5 + [2.0])), "neighbourhoods"),
    "pairs": (
        lx.c_lime(0.1),
        lx.Method("C-LIME", lx.Additive(lx.Normal(0.1, True)), lx.SquaredError()),
        "neighbourhoods",
    ),
    "placement": (squares(lx.Additive(lx.FairMasks())), masks(), "neighbourhoods"),
    "width": (lx.lime(4.0), lx.lime(5.0), "neighbourhoods"),
    "baseline": (masks(baseline=0.0), masks(baseline=0.1), "baselines"),
    "background": (masks(baseline=lx.Background(DATA[:3])), masks(baseline=lx.Background(DATA[1:4])), "baselines"),
    "a number and a function": (masks(baseline=0.0), masks(baseline=half), "baselines"),
    "functions": (masks(baseline=lambda x: x / 2), masks(baseline=lambda x: x / 2), "baselines"),
    "features": (masks(features=[0, 1, 1, 2, 0, 2]), masks(features=[0, 1, 1, 2, 2, 2]), "features"),
    "points": (squares(lx.NearestPoints(DATA, 20)), squares(lx.NearestPoints(DATA, 21)), "neighbourhoods"),
    "data": (squares(lx.NearestPoints(DATA, 20)), squares(lx.NearestPoints(DATA + 1, 20)), "neighbourhoods"),
    "two of a user's class": (squares(Sphere()), squares(Sphere()), "neighbourhoods"),
    "and of one that derives": (squares(Ellipse()), squares(Ellipse()), "neighbourhoods"),
    "surrogate": (squares(SPHERE, lx.Sparse(2)), squares(SPHERE, lx.Sparse(3)), "methods"),
    "intercept": (squares(SPHERE, lx.Linear()), squares(SPHERE, lx.Linear(intercept=False)), "methods"),
}


@pytest.mark.parametrize("name", DIFFERENT)
@pytest.mark.parametrize("turned", [False, True])
def test_parts_by_different_methods_are_refused(tanh_net, x, name, turned):
    one, other, what = DIFFERENT[name]
    parts = [lx.explain(tanh_net, x, method, n_samples=N) for method in (one, other)]
    with pytest.raises(ValueError, match=f"^explanations .*(different|differ in their) .*{what}"):
        lx.concat(parts[::-1] if turned else parts)
    lx.concat([parts[0], parts[0]])


def test_a_baseline_for_each_joins_no_baseline_for_all(tanh_net, x):
    each = lx.explain(tanh_net, x, lx.kernel_shap(DATA[:5]), n_samples=N)
    one = lx.explain(tanh_net, x, lx.kernel_shap(DATA[0]), n_samples=N)
    for parts in ([each, one], [one, each]):
        with pytest.raises(ValueError, match="different baselines"):
            lx.concat(parts)


def test_given_numbers_join(x):
    e = lx.as_explanation(x, x, lx.smoothgrad(), intercept=torch.arange(5.0))
    joined = lx.concat([e[3:], e[:3]])
    for part in ("weights", "intercept", "x"):
        assert torch.equal(getattr(joined, part), getattr(e, part)[[3, 4, 0, 1, 2]])
    torch.testing.assert_close(joined.predict(x), e[[3, 4, 0, 1, 2]].predict(x))
    with pytest.raises(ValueError, match="differ in their methods"):
        lx.concat([e, lx.as_explanation(x, x, lx.smoothgrad(), name="other")])


def test_parts_of_different_draws_ask_which(tanh_net, x):
    parts = [lx.explain(tanh_net, x[i : i + 1], lx.c_lime(), n_samples=60, seed=i) for i in range(2)]
    whole = lx.concat(part for part in parts)
    assert whole.settings["seed"] is None
    torch.testing.assert_close(whole.validate(30, seed=5), torch.cat([part.validate(30, seed=5) for part in parts]))
    assert torch.equal(whole.points(1, seed=1)[1], parts[1].points()[1])
    for call in (whole.validate, whole.points):
        with pytest.raises(ValueError, match="seed differs between the explanations that were joined: say seed="):
            call()
    with pytest.raises(TypeError, match="Explanation"):
        lx.concat([parts[0], 3])
