"""Perturbation tests: against loops written out, known curves, and the numbers of the paper's authors."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
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


@pytest.mark.parametrize("kind", ["bottom", "top", "deletion", "insertion"])
def test_features_that_are_not_ranked_stay_and_have_no_place(tanh_net, x, kind):
    """Written out, each instance with features of its own; area over its own k."""
    rng = torch.Generator().manual_seed(0)
    w, ranked = torch.randn(x.shape, generator=rng), torch.rand(x.shape, generator=rng) < 0.6
    ranked[0] = True
    test = lx.perturbation_test(tanh_net, x, {"w": w}, kind=kind, baseline=0.7, ranked=ranked)
    signed = kind in ("deletion", "insertion")
    areas = test.auc().set_index("instance")["auc"]
    assert len(ranked.sum(1).unique()) > 2
    for i in range(len(x)):
        some = ranked[i].nonzero()[:, 0].tolist()
        order = sorted(some, key=lambda j: float(w[i, j] if signed else w[i, j].abs()), reverse=kind != "bottom")
        expected = []
        for k in range(0 if signed else 1, len(some) + 1):
            moved = x[i].clone()
            moved[order[k:] if kind == "insertion" else order[:k]] = 0.7
            after = float(tanh_net(moved[None]).detach())
            expected.append(after if signed else abs(after - float(tanh_net(x[i : i + 1]).detach())))
        got = test.changes.query("instance == @i")[test.measure]
        np.testing.assert_allclose(got, expected, rtol=1e-9)
        area = trapezoid(expected) / len(some) if signed else np.mean(expected)
        assert areas[i] == pytest.approx(area, rel=1e-9)
    if not signed:
        assert test.auc(up_to=1)["auc"].to_numpy() == pytest.approx(test.changes.query("k == 1")["change"].to_numpy())


def test_noise_leaves_what_is_not_ranked(x):
    ranked = torch.tensor([True, False, True, False, False, False])
    test = lx.perturbation_test(
        lambda r: r[:, ~ranked].sum(1), x, {"w": torch.ones_like(x)}, replace="noise", ranked=ranked, draws=5
    )
    assert test.changes["k"].max() == 2
    np.testing.assert_array_equal(test.changes["change"], 0)


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
    gap = (auc["good"] - auc["reversed"]).to_numpy()
    assert pairs.loc[("good", "reversed"), "p"] == pytest.approx(stats.binomtest(int((gap > 0).sum()), len(gap)).pvalue)
    assert pairs.loc[("good", "reversed"), ["difference", "median"]].tolist() == [gap.mean(), np.median(gap)]
    assert pairs.loc[("good", "copy"), "p_holm"] == 1


def of_areas(kind, **areas):
    """A test by hand: one k, and each method's area on every instance."""
    frame = pd.DataFrame(areas).melt(var_name="method", value_name="v")
    frame = frame.assign(k=1, instance=np.tile(np.arange(len(frame) // len(areas)), len(areas)))
    test = lx.PerturbationTest(frame, kind, "baseline")
    return lx.PerturbationTest(frame.rename(columns={"v": test.measure}), kind, "baseline")


def test_a_pair_has_four_states():
    """Better, worse, equivalent within the margin, undecided; heavy tails decide nothing, and few instances nothing."""
    rng = np.random.default_rng(0)
    base = 1 + rng.random(40)
    areas = {"a": base, "half": base / 2, "near": base * (1 + 0.01 * rng.normal(size=40))}
    areas["wild"] = base + rng.standard_cauchy(40)

    def states(test, **more):
        return test.compare(**more).set_index(["method", "other"])["state"]

    low, high = states(of_areas("bottom", **areas)), states(of_areas("top", **areas))
    assert low[("a", "half")] == "worse"
    assert high[("a", "half")] == "better"
    assert low[("half", "near")] == "better"
    assert low[("a", "near")] == high[("a", "near")] == "equivalent"
    assert states(of_areas("bottom", **areas), margin=1e-6)[("a", "near")] == "undecided"
    assert low[("a", "wild")] == "undecided"
    few = {name: values[:7] for name, values in areas.items()}
    assert set(states(of_areas("bottom", **few))) == {"undecided"}, "at 1 − .05 / 6 seven say nothing"


def test_intervals_of_means_need_fifteen_instances():
    """Of areas on WHO and HELOC t intervals of 6 instances cover .87 to .96, of 15 .92 to .97."""
    values = np.random.default_rng(0).random(15)
    enough, few = of_areas("bottom", a=values).summary(), of_areas("bottom", a=values[:14]).summary()
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert enough.loc[0, ["low", "high"]].tolist() == pytest.approx([low, high])
    assert few[["low", "high"]].isna().all(axis=None)


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
    for bad in (x, torch.ones(4, dtype=torch.bool), x > 1e9):
        with pytest.raises(ValueError, match="ranked must be True or False, not all False, of 6 features or of 5"):
            lx.perturbation_test(tanh_net, x, {"w": x}, ranked=bad)
    with pytest.raises(ValueError, match="baseline"):
        lx.perturbation_test(tanh_net, x, {"w": x}, baseline=torch.zeros(4))
    with pytest.raises(ValueError, match='kind="insertion" sets features to the baseline'):
        lx.perturbation_test(tanh_net, x, {"w": x}, kind="insertion", replace="noise")
    with pytest.raises(ValueError, match="sigma must be positive"):
        lx.perturbation_test(tanh_net, x, {"w": x}, sigma=0.0)
    with pytest.raises(ValueError, match="draws must be a whole number"):
        lx.perturbation_test(tanh_net, x, {"w": x}, draws=0)


def test_whatever_holds_numbers_serves_as_weights(tanh_net, x):
    w = torch.randint(0, 100, x.shape, generator=torch.Generator().manual_seed(0))
    expected = changes(lx.perturbation_test(tanh_net, x, {"w": w.double()}))
    array = w.numpy()
    kinds = [array[:, ::-1][:, ::-1], array[:, ::-1].copy()[:, ::-1], array.tolist(), w.half(), w.requires_grad_(False)]
    kinds += [array.astype(dtype) for dtype in ("uint8", "uint16", "int64", ">f8", ">i2", "longdouble", "float16")]
    kinds += [pd.DataFrame(array), np.ma.masked_array(array)]
    for kind in kinds:
        np.testing.assert_array_equal(changes(lx.perturbation_test(tanh_net, x, {"w": kind})), expected)
    one = changes(lx.perturbation_test(tanh_net, x, {"w": array > 50}, draws=3))
    np.testing.assert_array_equal(one, changes(lx.perturbation_test(tanh_net, x, {"w": (w > 50).double()}, draws=3)))


def in_place(rows):
    return rows.sub_(1.0).div_(2.0).sum(1)


BUFFER = torch.zeros(10_000, dtype=torch.float64)


def into_one_buffer(rows):
    out = BUFFER[: len(rows)]
    return out.copy_(rows.square().sum(1))


@pytest.mark.parametrize("replace", ["baseline", "noise"])
@pytest.mark.parametrize("kind", ["bottom", "top", "deletion", "insertion"])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_models_that_change_what_they_are_given_or_gave(x, kind, replace, batch_size):
    """In place, or into one buffer: the numbers of the same function that leaves both alone."""
    if kind in ("deletion", "insertion") and replace == "noise":
        return
    before, weights = x.clone(), {"w": x.clone(), "v": -x}
    pairs = [(in_place, lambda rows: ((rows - 1) / 2).sum(1)), (into_one_buffer, lambda rows: rows.square().sum(1))]
    for model, same in pairs:
        got, expected = (
            lx.perturbation_test(f, x, weights, kind=kind, replace=replace, draws=3, batch_size=batch_size).changes
            for f in (model, same)
        )
        np.testing.assert_allclose(got.iloc[:, -1], expected.iloc[:, -1], rtol=1e-13, atol=1e-15)
    assert torch.equal(x, before)


@pytest.mark.parametrize("baseline", [0.0, lx.Background(torch.ones(3, 4, 5, 5, dtype=torch.float64))], ids=repr)
@pytest.mark.parametrize("batch_size", [1, 7, 64, 250])
def test_rows_and_masks_are_streamed(batch_size, baseline, monkeypatch):
    """No call has more rows, and no more masks are made; of whole numbers the sums are exact, so all agree."""
    rng = torch.Generator().manual_seed(0)
    x, w = (torch.randint(1, 50, (3, 4, 5, 5), generator=rng).double() for _ in range(2))
    rows, masks = [], []
    place = lx.Multiplicative.place
    monkeypatch.setattr(lx.Multiplicative, "place", lambda self, x, xi: (masks.append(xi.shape), place(self, x, xi))[1])

    def model(a):
        rows.append(len(a))
        return 3 * a.flatten(1).sum(1)

    for kind in ("bottom", "insertion"):
        tests = [
            lx.perturbation_test(model, x, {"w": w}, kind=kind, baseline=baseline, ties="argsort", batch_size=size)
            for size in (batch_size, 100_000)
        ]
        assert tests[0].changes.equals(tests[1].changes)
        rows.clear(), masks.clear()
        lx.perturbation_test(model, x, {"w": w}, kind=kind, baseline=baseline, ties="argsort", batch_size=batch_size)
        assert max(rows[2:]) <= max(batch_size, 3)  # after the probes; a sample has three rows
        drawn = [shape[-2] * shape[0] for shape in masks if len(shape) == 3]
        assert max(drawn) <= batch_size
        total = sum(drawn)
        assert total == 3 * (100 if kind == "bottom" else 101)


def test_by_default_a_call_has_the_rows_that_explain_takes():
    """12,289 rows of 12,288 masks each before: 604 MB of masks."""
    calls = []

    def model(a):
        calls.append(len(a))
        return a.flatten(1).sum(1)

    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    test = lx.perturbation_test(model, x, {"w": x}, kind="deletion", ties="argsort")
    assert max(calls) == 2**17 // (3 * 64 * 64) == 10
    left = x.flatten().sort(descending=True).values.double()
    expected = left.flip(0).cumsum(0).flip(0).numpy()
    np.testing.assert_allclose(test.changes["prediction"][:-1], expected, rtol=1e-4)


def test_explanations_of_other_outputs_and_instances_are_refused(three_outputs, x, tmp_path):
    e = lx.explain(three_outputs, x, lx.occlusion(), target=1)
    loaded = lx.load(e.save(tmp_path / "e"))
    same = changes(lx.perturbation_test(three_outputs, x, {"w": e.weights}, target=1))
    for given, target in [(e, 1), (loaded, 1), (e, [1] * 5), (loaded, [1] * 5), (e, lambda out: out[:, 1])]:
        np.testing.assert_array_equal(
            changes(lx.perturbation_test(three_outputs, x, {"w": given}, target=target)), same
        )
        with pytest.raises(ValueError, match=r"^explanations: 'w' explains other instances than x$"):
            lx.perturbation_test(three_outputs, x + 1, {"w": given}, target=target)
    for given, target in [(e, 0), (loaded, 0), (e, [1, 1, 1, 1, 0]), (e, lambda out: out[:, 0])]:
        with pytest.raises(ValueError, match=r"^explanations: 'w' explains another output: its target is 1, not"):
            lx.perturbation_test(three_outputs, x, {"w": given}, target=target)
