"""What users bring is held to its contract inside every call: neighbourhoods, distributions, surrogates, models."""

import copy
import threading
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import locapprox as lx
from locapprox.neighbourhoods.contract import ContractError

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
W = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def line(rows):
    return rows @ W.to(rows)


class Noise:
    """A neighbourhood as a user writes one."""

    def draw(self, x, n, rng):
        return lx.Draw(torch.randn(n, x[0].numel(), generator=rng, dtype=x.dtype), torch.ones(n, dtype=torch.float64))

    def place(self, x, xi):
        return x.unsqueeze(1) + xi.reshape(*xi.shape[:-1], *x.shape[1:])


def noise(base=Noise, **methods):
    return type("Mine", (base,), methods)()


def explain(neighbourhood, loss=None, model=line, x=X, **arguments):
    return lx.explain(model, x, lx.Method("mine", neighbourhood, loss or lx.SquaredError()), n_samples=50, **arguments)


def in_place(self, x, xi):
    xi.mul_(0.5)
    return Noise.place(self, x, xi)


def three_dimensional(self, x, n, rng):
    xi = torch.randn(3, n, 3, generator=rng, dtype=x.dtype)  # of three instances, whatever x it gets
    return lx.Draw(xi, torch.ones(n))


def raises(error):
    def method(self, *arguments):
        raise error

    return method


BROKEN = {
    "the same generator seed": noise(draw=lambda s, x, n, rng: lx.Draw(torch.randn(n, 3).to(x), torch.ones(n))),
    "the global random state": noise(draw=lambda s, x, n, rng: (torch.rand(1), Noise.draw(s, x, n, rng))[1]),
    "needs xi .*; got xi \\(3, 16, 3\\)": noise(draw=three_dimensional),
    "must not change ξ": noise(place=in_place),
    "must not change x": noise(place=lambda s, x, xi: Noise.place(s, x.mul_(0.5), xi)),
    "draw failed: KeyError: 'boom'": noise(draw=raises(KeyError("boom"))),
    "place failed: ZeroDivisionError": noise(place=raises(ZeroDivisionError("boom"))),
    "must not mix rows": noise(place=lambda s, x, xi: Noise.place(s, x, xi - xi.mean(-2, keepdim=True))),
    "must not mix instances": noise(place=lambda s, x, xi: Noise.place(s, x - x.mean(0), xi)),
    "the same for ξ": noise(place=lambda s, x, xi: x[:, None] + (xi if xi.ndim == 2 else -xi)),
    "for every row of ξ": noise(place=lambda s, x, xi: Noise.place(s, x, xi)[:, 1:]),
    "keep x's dtype": noise(place=lambda s, x, xi: Noise.place(s, x, xi).float()),
    "rows must not change with the seed": noise(draw=lambda s, x, n, rng: replace(Noise.draw(s, x, n, rng), n_fixed=n)),
    "xi must not be NaN": noise(draw=lambda s, x, n, rng: lx.Draw(torch.full((n, 3), torch.nan).to(x), torch.ones(n))),
    "place runs out of memory": noise(place=raises(RuntimeError("can't allocate memory"))),
}


@pytest.mark.parametrize("clause", BROKEN)
@pytest.mark.parametrize("loss", [lx.SquaredError(), lx.GradientMatching()], ids=["values", "gradients"])
def test_a_neighbourhood_is_held_to_its_contract_in_explain(clause, loss):
    calls = []

    def model(rows):
        calls.append(len(rows))
        return line(rows)

    with pytest.raises((ValueError, MemoryError), match=clause) as caught:
        explain(BROKEN[clause], loss, model)
    assert "Mine" in str(caught.value)
    assert not calls  # the model is not asked before


def test_the_gate_lets_a_right_one_pass():
    for part in (Noise(), type("Mine", (Noise, lx.BaseNeighbourhood), {})()):
        for loss in (lx.SquaredError(), lx.GradientMatching()):
            torch.testing.assert_close(explain(part, loss).weights, W.expand(4, 3), rtol=1e-9, atol=1e-9)
    masks = lx.Multiplicative(type("Fair", (), {"draw": lambda s, d, n, g, t: lx.FairMasks().draw(d, n, g, t)})())
    torch.testing.assert_close(explain(masks).weights, W * X, rtol=1e-9, atol=1e-9)


class Points:
    """Rows of which nothing is random; said of themselves or not."""

    def __init__(self, fixed, n=20):
        self.fixed, self.n = fixed, n

    def draw(self, x, n, rng):
        xi = torch.randn(self.n, 3, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        return lx.Draw(xi, torch.ones(len(xi), dtype=torch.float64), n_fixed=self.fixed)

    place = Noise.place


def test_rows_that_are_not_random_must_say_so():
    curved = explain(Points(20), model=lambda rows: line(rows).sin())
    assert not bool(curved.standard_error.any())
    with pytest.raises(ContractError, match="Points breaks its contract: draw was asked for 16 rows and gave 20"):
        explain(Points(0))
    with pytest.raises(ContractError, match="a second draw from one generator must be fresh"):
        explain(Points(0, n=16))


def test_a_distribution_of_a_users_is_named():
    cases = {
        "Mine.draw must return lx.Draw": lambda s, d, n, rng, dtype: (1, 2),
        "Mine.draw gave xi with 2 columns for 3 features": lambda s, d, n, rng, dtype: lx.Normal(1.0).draw(
            d - 1, n, rng, dtype
        ),
        "Mine.* failed: KeyError: 'boom'": raises(KeyError("boom")),
    }
    for clause, draw in cases.items():
        for where in (lx.Additive(noise(draw=draw)), lx.Multiplicative(noise(lx.BaseDistribution, draw=draw))):
            with pytest.raises(ValueError, match=clause):
                explain(where)


def test_a_block_after_the_probe_is_looked_at_too():
    """The probe sees few rows; a draw that fails later is named as well."""
    later = noise(draw=lambda s, x, n, rng: Noise.draw(s, x, n, rng) if n <= 16 else {}["boom"])
    with pytest.raises(ValueError, match=r"Mine\.draw failed: KeyError: 'boom'"):
        explain(later)
    lost = noise(draw=lambda s, x, n, rng: lx.Draw(Noise.draw(s, x, n, rng).xi / (n <= 16), torch.ones(n)))
    with pytest.raises(ValueError, match="a draw's xi must not be NaN or infinite"):
        explain(lost)


def test_infinite_and_finite_weights_are_not_mixed():
    def mixed(s, x, n, rng):
        weight = torch.ones(len(x), n)
        weight[0, 0] = torch.inf
        return replace(Noise.draw(s, x, n, rng), weight=weight)

    with pytest.raises(ValueError, match="inf for some instances, finite for others"):
        explain(noise(draw=mixed))

    def halves(s, x, n, rng):
        weight = torch.ones(n)
        weight[1] = torch.inf
        return replace(Noise.draw(s, x, n, rng), weight=weight, unit_size=2)

    with pytest.raises(ValueError, match="inf for some rows of a unit"):
        explain(noise(draw=halves))


# ---- surrogates


class Own:
    def __init__(self, change):
        self.change = change

    def fit(self, sample, loss):
        return self.change(lx.Linear().fit(sample, loss))


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        (lambda fit: {"weights": fit.weights}, "fit must return an lx.Fit, got dict"),
        (
            lambda fit: replace(fit, weights=fit.weights[..., :2], standard_error=fit.weights[..., :2]),
            r"weights must be \(4, 1, 3\), got \(4, 1, 2\)",
        ),
        (lambda fit: replace(fit, loss=-1 - fit.loss), "loss must not be negative"),
        (lambda fit: replace(fit, intercept=fit.intercept / 0), "weights are finite"),
        (lambda fit: {}["boom"], "Own.fit failed: KeyError: 'boom'"),
    ],
)
def test_a_surrogate_is_held_to_its_contract_in_explain(change, clause):
    part = Own(change)
    part_of_base = type("Own", (Own, lx.BaseSurrogate), {})(change)
    for surrogate in (part, part_of_base):
        with pytest.raises((ValueError, TypeError), match=clause) as caught:
            lx.explain(line, X, lx.Method("mine", lx.Additive(lx.Normal(1.0)), lx.SquaredError(), surrogate))
        assert "Own" in str(caught.value)


# ---- models whose answer for a row depends on the rows beside it


def normed(training=True):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).double()
    net(torch.randn(100, 3, dtype=torch.float64))
    return net.train(training)


MIXING = {
    "standardises": lambda rows: line((rows - rows.mean(0)) / (rows.std(0, correction=0) + 1e-9)),
    "divides by its largest": lambda rows: line(rows) / line(rows).max(),
    "scales to 0 … 1": lambda rows: (line(rows) - line(rows).min()) / (line(rows).max() - line(rows).min() + 1e-9),
    "sorts up": lambda rows: line(rows).sort().values,
    "sorts down": lambda rows: line(rows).sort(descending=True).values,
    "dropout": lambda rows: line(nn.functional.dropout(rows, 0.3)),
    "remembers": lambda rows, seen=[]: (seen.append(1), line(rows) + len(seen))[1],
}


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("instances", [1, 2, 3, 4])
def test_a_model_that_mixes_rows_is_refused(name, instances):
    model = MIXING[name]
    with pytest.raises(ValueError, match=r"with the rows beside it"):
        lx.explain(lambda rows: model(rows), X[:instances] + 1, lx.c_lime(), n_samples=50)


def test_a_model_may_write_its_answers_into_one_buffer():
    buffer = torch.empty(10_000, dtype=torch.float64)

    def model(rows):
        buffer[: len(rows)] = line(rows).sin()
        return buffer[: len(rows)]

    for method in (lx.c_lime(), lx.kernel_shap(), lx.occlusion()):
        for rows in (X, X[:1]):
            found, right = (lx.explain(f, rows, method, n_samples=60) for f in (model, lambda a: line(a).sin()))
            assert torch.equal(found.weights, right.weights)


def test_an_instance_alone_needs_no_neighbour():
    """A function that only takes what it knows is asked about that alone."""

    def known(rows):
        if not bool((rows == 1).logical_or(rows == 0).all()):
            raise KeyError("not in the table")
        return line(rows)

    ones = torch.ones(1, 3, dtype=torch.float64)
    torch.testing.assert_close(lx.explain(known, ones, lx.occlusion()).weights[0], W)


NET = normed()


@pytest.mark.parametrize("how", ["method", "function", "partial", "global"])
def test_a_module_inside_a_function_is_explained_in_evaluation_mode(how):
    net = NET
    calls = {"method": net.forward, "function": lambda rows: net(rows), "partial": partial(net.forward)}
    model = calls.get(how, lambda rows: NET(rows))
    before = copy.deepcopy(net.state_dict())
    with pytest.warns(UserWarning, match="training mode"):
        e = lx.explain(model, X, lx.c_lime(), n_samples=50)
    assert all(part.training for part in net.modules())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    still = copy.deepcopy(net).eval()
    assert torch.equal(e.weights, lx.explain(still, X, lx.c_lime(), n_samples=50).weights)


@pytest.mark.filterwarnings("ignore:the model is in training mode")
def test_eight_threads_explain_one_module_in_training_mode():
    """Bitwise what one thread finds, and the mode is restored when the last one leaves."""
    net = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5), nn.Tanh(), nn.Linear(64, 1)).double()
    net[1].eval()  # one part is in evaluation mode already, and stays
    modes = [part.training for part in net.modules()]
    methods = [lx.lime(), lx.c_lime(), lx.smoothgrad(), lx.kernel_shap()] * 2
    sizes = [100 * (1 + i) for i in range(8)]
    alone = [lx.explain(net, X, method, n_samples=n).weights for method, n in zip(methods, sizes, strict=True)]
    net[1].train()
    found, start = [None] * 8, threading.Barrier(8)

    def run(i):
        start.wait()
        for _ in range(3):
            found[i] = lx.explain(net, X, methods[i], n_samples=sizes[i], progress=False).weights

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(alone, found, strict=True))
    assert [part.training for part in net.modules()] == [True] * 5
    assert modes == [True, True, False, True, True]


def test_a_frozen_script_has_no_mode():
    script = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).eval()))
    x = np.asarray(X, dtype=np.float32)
    e = lx.explain(script, torch.from_numpy(x), lx.smoothgrad(), n_samples=50)
    assert e.weights.shape == (4, 3)


# ---- what the gate must not refuse


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_instances_on_the_border_of_a_float32_model(scale):
    """Outputs that are round-off about 0 are compared with what the model does near by."""
    torch.manual_seed(0)
    for _ in range(10):
        net = nn.Linear(200, 1, bias=False)
        x = scale * torch.randn(3, 200)
        x = x - (x @ net.weight.mT) * net.weight / (net.weight**2).sum()
        e = lx.explain(net, x.detach(), lx.vanilla_gradients())
        torch.testing.assert_close(e.weights.float(), net.weight.detach().expand(3, -1))


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_a_model_that_mixes_rows_is_refused_in_any_unit(unit):
    with pytest.raises(ValueError, match="with the rows beside it"):
        lx.explain(lambda rows: unit * (line(rows) - line(rows).mean()), X + 1, lx.c_lime(), n_samples=50)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_probe_keeps_to_batch_size(batch_size):
    def model(rows):
        if len(rows) > batch_size:
            raise MemoryError
        return line(rows)

    e = lx.explain(model, X, lx.c_lime(1.0), n_samples=20, batch_size=batch_size)
    torch.testing.assert_close(e.weights, W.expand(4, 3), rtol=1e-9, atol=1e-9)


def test_codes_are_asked_for_as_they_are():
    """Whole numbers may index a table: the neighbours' come from other instances."""
    table = torch.randn(7, dtype=torch.float64)
    codes = torch.tensor([[0.0, 1.0, 6.0], [3.0, 2.0, 6.0]], dtype=torch.float64)
    asked = []

    def model(rows):
        asked.append(rows)
        return table[rows.long()].sum(1)

    lx.explain(model, codes, lx.occlusion(), batch_size=100)
    assert all(torch.equal(rows, rows.round()) and bool((rows <= 6).all()) for rows in asked)


class Components(Noise):
    """ξ moves x along a few directions."""

    C = torch.randn(50, 784, generator=torch.Generator().manual_seed(0))

    def draw(self, x, n, rng):
        return lx.Draw(torch.randn(n, 50, generator=rng, dtype=x.dtype), torch.ones(n))

    def place(self, x, xi):
        return x[:, None] + xi @ self.C.to(x)


class Rare(Noise):
    def draw(self, x, n, rng):
        xi = torch.rand(n, x.shape[1], generator=rng, dtype=x.dtype) > 0.01
        return lx.Draw(xi.to(x), torch.ones(n))


class Many(Noise, lx.BaseNeighbourhood):
    draws_at_once = True

    def draw(self, x, n, rng):
        if n < 40:
            raise ValueError("too few")
        return Noise().draw(x, n, rng)


def test_legal_neighbourhoods_that_few_rows_could_mistake():
    x = torch.zeros(2, 784)
    components = lx.Method("", Components(), lx.SquaredError())
    e = lx.explain(lambda a: a.sum(1), x, components, n_samples=200)
    torch.testing.assert_close(e.weights.float(), Components.C.sum(1).expand(2, -1), rtol=1e-3, atol=1e-3)
    for part, loss in ((Rare(), lx.GradientMatching()), (Many(), lx.SquaredError())):
        torch.testing.assert_close(explain(part, loss).weights, W.expand(4, 3), rtol=1e-9, atol=1e-9)


def test_a_function_whose_attributes_have_the_names_of_modules():
    class Holder:
        NET = staticmethod(lambda rows: line(rows))

    before, held = [part.training for part in NET.modules()], Holder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lx.explain(lambda rows: held.NET(rows), X, lx.occlusion())
    assert [part.training for part in NET.modules()] == before


def test_a_name_that_is_not_there_yet():
    def model(rows):
        return line(rows) if len(rows) else later

    e = lx.explain(model, X, lx.c_lime(), n_samples=50)
    later = 1
    torch.testing.assert_close(e.weights, W.expand(4, 3), rtol=1e-6, atol=1e-6)


def test_where_warnings_are_errors_they_stay_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="n_samples is small"):
            lx.explain(line, X, lx.c_lime(), n_samples=5)
