"""The benchmarks count right: the floor's inputs, Shapley values of a table, where an error falls below a level."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import locapprox as lx
from experiments.bench import games, samples, times
from experiments.bench.cases import Case
from experiments.bench.values import looked_up
from paper_figures import bench

NET = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)).eval().requires_grad_(False)
X = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) + 0.1
METHODS = lx.paper_methods()


@pytest.mark.parametrize("name", METHODS)
def test_the_floor_evaluates_what_the_method_asks_about(name):
    case = Case("small", NET, X, 20, {name: METHODS[name]}, peers=False)
    seen = []
    hook = NET.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    e = times.engine(case, name)()
    hook.remove()
    inputs, every = times.asked(e), torch.cat(seen)
    assert len(inputs) == int(e.n_samples.sum())
    assert float((inputs[:, None] - every).abs().amax(2).amin(1).max()) < 1e-6
    assert 0 <= len(every) - len(inputs) <= 8  # what it only tries the model with


def test_the_floor_of_an_estimator_with_a_background():
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(X.double().numpy(), X.sum(1).double().numpy())
    methods = {"LIME": lx.lime(2.0, lx.Background(X[:2].double()))}
    case = Case("small", model, X.double().numpy(), 20, methods, peers=False, background=X[:2])
    assert times.asked(times.engine(case, "LIME")()).shape == (3 * 20 * 2, 5)
    assert set(times.floors(case, "LIME")) == {"evaluations"}


def test_a_round_has_everybody():
    case = Case("small", NET, X, 20, {"KernelSHAP": METHODS["KernelSHAP"]}, peers=False)
    table = times.measured(case, 2)
    assert set(table["who"]) == {"evaluations", "evaluations and placing", "locapprox"}
    assert len(table) == 6
    assert (table["seconds"] > 0).all()


def test_ratios_are_medians_of_rounds_and_unsteady_floors_are_named():
    def case(name, floor):
        rows = [("locapprox", (3.0, 4.0, 5.0)), ("evaluations", floor), ("captum", (6.0, 4.0, 50.0))]
        frame = [(name, 2, "LIME", 10, who, r, s) for who, seconds in rows for r, s in enumerate(seconds)]
        return pd.DataFrame(frame, columns=["case", "instances", "method", "n", "who", "round", "seconds"])

    found = times.ratios(pd.concat([case("even", (1.0, 1.0, 1.0)), case("odd", (1.0, 2.0, 3.0))])).set_index("case")
    assert found.loc["even", "over evaluations"] == 4
    assert found.loc["even", "captum / locapprox"] == 2  # of 2, 1, 10
    assert found.loc["odd", "ms beyond evaluations"] == 2000
    assert found["unsteady"].tolist() == [False, True]


def test_shapley_values_of_a_table():
    d, v = 4, np.random.default_rng(0).normal(size=16)
    exact = np.zeros(d)
    for order in itertools.permutations(range(d)):
        seen = 0
        for i in order:
            exact[i] += (v[seen | 1 << i] - v[seen]) / math.factorial(d)
            seen |= 1 << i
    np.testing.assert_allclose(games.shapley(v, d), exact, rtol=1e-12)
    masks = np.array([[0, 1, 1, 0], [1, 0, 0, 1]])
    np.testing.assert_array_equal(looked_up(v)(masks), v[[6, 9]])
    np.testing.assert_array_equal(games.everything(looked_up(v), d), v.astype(np.float32))


def test_evaluations_that_an_accuracy_takes():
    n = np.array([100, 400, 1600])
    frames = [
        pd.DataFrame({"game": "g", "d": 9, "instance": i, "estimator": "rate", "evaluations": n, "seed": 0, "error": e})
        for i, e in enumerate([0.5 / n**0.5, 1 / n**0.5, 2 / n**0.5])
    ]
    row = samples.needed(pd.concat(frames), (0.05, 0.025, 0.001)).iloc[0]
    assert row["evaluations to 5%"] == pytest.approx(400)  # of the median instance
    assert row["slope"] == pytest.approx(-0.5)
    assert row["evaluations to 2%"] == pytest.approx(1600)
    assert np.isnan(row["evaluations to 0%"])


def test_the_page_has_what_was_measured(tmp_path):
    case = Case("small", NET, X, 20, {"KernelSHAP": METHODS["KernelSHAP"]}, peers=False)
    peer = times.measured(case, 1).query("who == 'locapprox'").assign(who="captum")
    pd.concat([times.measured(case, 1), peer]).to_csv(tmp_path / "small.csv", index=False)
    pd.DataFrame({"method": "LIME", "n": [10, 100], "added MiB": [1.0, 2.0]}).to_csv(tmp_path / "memory.csv")
    text = bench.page(tmp_path).read_text()
    assert {path.stem for path in tmp_path.glob("*.png")} == {"floors", "peers", "memory"}
    assert text.count("<img") == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("who", samples.ESTIMATORS)
def test_every_estimator_finds_the_values_of_an_additive_game(who):
    exact = np.linspace(-1, 2, 7)
    game = games.Game("additive", 0, 7, lambda masks: np.asarray(masks, float) @ exact + 3, exact)
    np.testing.assert_allclose(samples.ESTIMATORS[who][0](game, 60, 0), exact, atol=1e-5)
