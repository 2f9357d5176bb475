"""Perturbation tests: against loops written out, known curves, and the numbers of the paper's authors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import trapezoid

import locapprox as lx
from locapprox.evaluation.perturbation import holm

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "authors.json"
NAMES = {
    "lime": "LIME",
    "ks": "KernelSHAP",
    "oc": "Occlusion",
    "ig": "IntegratedGradients",
    "gxi": "GradientxInput",
    "vg": "VanillaGradients",
    "sg": "SmoothGrad",
}


@pytest.mark.parametrize("name", ["who_linear", "who_ffnnA", "heloc_logistic", "heloc_ffnnA"])
@pytest.mark.parametrize("kind", ["bottom", "top"])
def test_the_authors_stored_explanations_give_their_curves(authors, name, kind):
    """Binary to 1e-5; continuous: both intervals hold the same noise, ours of 100 draws and theirs of 500."""
    if not REFERENCE.is_file():
        pytest.skip("no reference/authors.json")
    stored = authors(name)
    weights = {theirs: stored.stored[f"captum_{short}"] for short, theirs in NAMES.items()}
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))[name]["exp3"]
    for replace, part in (("baseline", "binary"), ("noise", "continuous")):
        test = lx.perturbation_test(stored.model, stored.x, weights, kind=kind, replace=replace, ties="argsort")
        curves = test.curves().set_index(["method", "k"])
        for method in NAMES.values():
            theirs, ours = reference[f"{kind}k_{part}"][method], curves.loc[method].iloc[:11]
            if replace == "baseline":
                np.testing.assert_allclose(ours["mean"], theirs["mean"], atol=1e-5)
                continue
            own = (ours["high"] - ours["mean"]) / stats.t.ppf(0.975, len(stored.x) - 1)
            z = (ours["mean"] - theirs["mean"]) / np.hypot(own, theirs["sem"])
            assert z.abs().max() < 3, method


def changes(test, method="w"):
    frame = test.changes[test.changes["method"] == method]
    return frame.pivot_table(index="instance", columns="k", values="change").to_numpy()


@pytest.mark.parametrize("kind", ["bottom", "top"])
def test_a_baseline_is_set_for_the_first_k(tanh_net, x, kind):
    w = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    got = changes(lx.perturbation_test(tanh_net, x, {"w": w}, kind=kind, baseline=0.7))
    for i in range(len(x)):
        order = sorted(range(6), key=lambda j: float(w[i, j].abs()), reverse=kind == "top")
        for k in range(1, 7):
            moved = x[i].clone()
            moved[order[:k]] = 0.7
            expected = (tanh_net(moved[None]) - tanh_net(x[i : i + 1])).detach().abs()
            assert got[i, k - 1] == pytest.approx(float(expected), rel=1e-10)


def test_noise_on_a_sum_is_half_normal(x):
    """E|N(0, kσ²)| = σ √(2k/π)."""
    big = x.repeat(200, 1)
    test = lx.perturbation_test(lambda r: r.sum(1), big, {"w": big}, replace="noise", sigma=0.3, draws=50)
    expected = 0.3 * np.sqrt(2 * np.arange(1, 7) / np.pi)
    np.testing.assert_allclose(test.curves()["mean"], expected, rtol=0.02)


def test_equal_weights_are_averaged_over_orders(x):
    """All weights equal: the k first are a random subset, so a sum changes by k times its mean on average."""
    x = x.abs()
    test = lx.perturbation_test(lambda r: r.sum(1), x, {"w": torch.ones_like(x)}, draws=1500)
    expected = x.mean(1, keepdim=True) * torch.arange(1, 7)
    np.testing.assert_allclose(changes(test), expected.numpy(), rtol=0.1)


def test_ties_at_the_baseline_cost_no_further_calls(x):
    x = x.clone()
    x[:, :3] = 0
    calls = []

    def model(rows):
        calls.append(len(rows))
        return rows.sum(1)

    got = changes(lx.perturbation_test(model, x, {"w": x.clone()}))
    assert len(calls) <= 4  # two probes, f(x) and one round
    np.testing.assert_array_equal(got[:, :3], 0)


def test_groups_move_together(tanh_net, x):
    labels = [0, 0, 1, 2, 2, 3]
    w = torch.tensor([[1.0, 4.0, 2.0, 3.0]]).expand(5, 4)
    got = changes(lx.perturbation_test(tanh_net, x, {"w": w}, kind="top", features=labels))
    one = x.clone()
    one[:, 2] = 0
    two = one.clone()
    two[:, 5] = 0
    expected = [(tanh_net(r) - tanh_net(x)).abs()[:, 0].detach() for r in (one, two)]
    np.testing.assert_allclose(got[:, :2], torch.stack(expected, 1).numpy(), rtol=1e-10)


def test_a_groups_weight_is_the_sum_of_its_entries(tanh_net, x):
    labels = [0, 0, 1, 2, 2, 3]
    w = torch.tensor([[1.0, -3.0, 0.5, 1.0, 2.0, 0.1]]).expand(5, 6).to(x)
    summed = torch.tensor([[-2.0, 0.5, 3.0, 0.1]]).expand(5, 4)
    for kind in ("bottom", "top", "deletion", "insertion"):
        by_entry, by_label = (
            lx.perturbation_test(tanh_net, x, {"w": given}, kind=kind, features=labels) for given in (w, summed)
        )
        assert by_entry.changes.equals(by_label.changes)


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
def test_deletion_and_insertion_written_out(tanh_net, x, kind):
    """The prediction while the features of largest weight, sign included, leave or return; areas by trapezoids."""
    w = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    test = lx.perturbation_test(tanh_net, x, {"w": w}, kind=kind, baseline=0.7)
    got = test.changes.pivot_table(index="instance", columns="k", values="prediction")
    assert got.columns.tolist() == list(range(7))
    for i in range(len(x)):
        order = sorted(range(6), key=lambda j: -float(w[i, j]))
        rows = []
        for k in range(7):
            moved = x[i].clone() if kind == "deletion" else torch.full_like(x[i], 0.7)
            moved[order[:k]] = 0.7 if kind == "deletion" else x[i][order[:k]]
            rows.append(float(tanh_net(moved[None]).detach()))
        np.testing.assert_allclose(got.loc[i], rows, rtol=1e-10)
        area = test.auc().set_index("instance")["auc"][i]
        assert area == pytest.approx(trapezoid(rows) / 6, rel=1e-10)


def test_the_right_order_wins_deletion_and_insertion(x):
    """f = w·x: contributions w ⊙ x are the right order, so deletion falls fastest and insertion rises fastest."""
    slope = torch.linspace(-2, 3, 6, dtype=x.dtype)
    weights = {"reversed": -slope * x, "good": slope * x}
    for kind in ("deletion", "insertion"):
        test = lx.perturbation_test(lambda r: r @ slope, x, weights, kind=kind)
        assert test.summary()["method"].tolist() == ["good", "reversed"]
        ends = test.curves().query("method == 'good'").set_index("k")["mean"]
        both = {0: float((x @ slope).mean()), 6: 0.0}
        if kind == "insertion":
            both = {0: 0.0, 6: both[0]}
        assert all(ends[k] == pytest.approx(value, abs=1e-12) for k, value in both.items())


def test_area_order_and_comparisons(x):
    """f = w·x with w known: w ⊙ x is the right order for a baseline, its reverse the worst."""
    slope = torch.linspace(0.5, 3, 6, dtype=x.dtype)
    x = x.abs() + 0.1
    good = slope * x
    weights = {"good": good, "copy": good.clone(), "reversed": 1 / good}
    test = lx.perturbation_test(lambda r: r @ slope, x, weights)
    table = test.summary()
    assert table["method"].tolist() == ["good", "copy", "reversed"]
    sums = good.sort(1).values.cumsum(1)
    auc = test.auc().pivot_table(index="instance", columns="method", values="auc")
    np.testing.assert_allclose(auc["good"], sums.mean(1).numpy())
    np.testing.assert_allclose(
        test.auc(up_to=2).query("method == 'good'")["auc"], sums[:, :2].mean(1).numpy(), rtol=1e-12
    )
    pairs = test.compare().set_index(["method", "other"])
    expected = stats.ttest_rel(auc["good"], auc["reversed"])
    assert pairs.loc[("good", "reversed"), "p"] == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert pairs.loc[("good", "reversed"), "low"] == pytest.approx(low)
    assert pairs.loc[("good", "reversed"), "high"] == pytest.approx(high)
    assert pairs.loc[("good", "copy"), "p_holm"] == 1


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.005])), [0.06, 0.03, 0.06, 0.02])


def test_explanations_serve_as_weights_and_seeds_repeat(tanh_net, x):
    e = lx.explain(tanh_net, x, lx.occlusion())
    a = lx.perturbation_test(tanh_net, x, {"w": e}, replace="noise", draws=5, seed=1)
    b = lx.perturbation_test(tanh_net, x, {"w": e.weights}, replace="noise", draws=5, seed=1)
    np.testing.assert_array_equal(changes(a), changes(b))
    assert not np.array_equal(
        changes(a), changes(lx.perturbation_test(tanh_net, x, {"w": e}, replace="noise", draws=5))
    )


def test_bad_input_is_named(tanh_net, three_outputs, x):
    with pytest.raises(ValueError, match=r"target must choose one output for each instance, got range\(0, 3\)"):
        lx.perturbation_test(three_outputs, x, {"w": x}, target=range(3))
    with pytest.raises(ValueError, match="explanations is empty"):
        lx.perturbation_test(tanh_net, x, {})
    with pytest.raises(ValueError, match=r"explanations: 'w' has shape \(5, 4\); expected 5 instances of 6 features"):
        lx.perturbation_test(tanh_net, x, {"w": torch.ones(5, 4)})
    with pytest.raises(ValueError, match="'w' has NaN"):
        lx.perturbation_test(tanh_net, x, {"w": torch.full_like(x, torch.nan)})
    with pytest.raises(ValueError, match="baseline"):
        lx.perturbation_test(tanh_net, x, {"w": x}, baseline=torch.zeros(4))
    with pytest.raises(ValueError, match='kind="insertion" sets features to the baseline'):
        lx.perturbation_test(tanh_net, x, {"w": x}, kind="insertion", replace="noise")
    with pytest.raises(ValueError, match="sigma must be positive"):
        lx.perturbation_test(tanh_net, x, {"w": x}, sigma=0.0)
    with pytest.raises(ValueError, match="draws must be a whole number"):
        lx.perturbation_test(tanh_net, x, {"w": x}, draws=0)
