"""Explainers and other people's numbers: what enters evaluations as an explanation, and in whose units."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import FeatureAblation, GuidedBackprop, IntegratedGradients, Saliency
from matplotlib import pyplot as plt
from torch import nn

import locapprox as lx
from tests.test_bad_input import as_a_user_imports_it

N, STEPS, BASE = 200, 32, 0.3
LABELS = torch.tensor([0, 1, 1, 2, 0, 2])
OWN_LABELS = torch.tensor([[0, 1, 1, 2, 0, 2], [0] * 3 + [1] * 3, [0, 1, 2, 3, 4, 4], [1, 0] * 3, [0, 1, 1, 2, 2, 2]])
COLUMNS = {
    "masks": lx.Multiplicative(lx.FairMasks(), BASE),
    "Shapley": lx.kernel_shap(BASE),
    "path": lx.integrated_gradients(BASE),
    "noise": lx.Additive(lx.Normal(0.4)),
    "slopes": lx.smoothgrad(0.4),
    "at x": lx.vanilla_gradients(),
}


def captum_ig(model, x, target):
    base = torch.full_like(x, BASE)
    return IntegratedGradients(model).attribute(x, base, target, n_steps=STEPS, method="gausslegendre")


def captum_saliency(model, x, target):
    return Saliency(model).attribute(x.clone().requires_grad_(), target, abs=False)


IG = lx.Explainer("captum IG", captum_ig, like=lx.kernel_shap(BASE))
SALIENCY = lx.Explainer("captum Saliency", captum_saliency, like=lx.smoothgrad())
PAIRS = {"IG": (lx.integrated_gradients(BASE), IG), "Saliency": (lx.vanilla_gradients(), SALIENCY)}
CLOSE = {"IG": (2e-6, 1e-7), "Saliency": (1e-9, 1e-12)}  # rtol, atol: captum's weights of the nodes are float32


def errors(found):
    return found.table.pivot_table(index=["neighbourhood", "instance"], columns="method", values="error")


# ---- explainers are functions


@pytest.mark.parametrize("kind", ["tensor", "array", "frame"])
def test_a_methods_explainer_is_explain_with_its_settings(three_outputs, x, kind):
    inputs = {"tensor": x, "array": x.numpy(), "frame": pd.DataFrame(x.numpy())}[kind]
    for method in (lx.smoothgrad(0.2), lx.kernel_shap(BASE, LABELS), lx.lime(4.0, features=OWN_LABELS)):
        explainer = method.explainer(n_samples=80, seed=2, batch_size=9)
        assert (explainer.name, explainer.like, explainer.is_function_approximation) == (method.name, method, True)
        for target in (1, [0, 1, 2, 0, 1], lambda out: out.sum(1)):
            e = lx.explain(three_outputs, inputs, method, n_samples=80, seed=2, target=target)
            maps = explainer(three_outputs, inputs, target)
            assert maps.shape == (5, 6)
            torch.testing.assert_close(maps, e.on_input(), rtol=1e-9, atol=1e-12)


def test_what_an_explainer_returns_is_maps_of_numbers(x):
    held = x.clone().requires_grad_()
    given = {"tensor": held * 2, "array": x.numpy() * 2, "list": (2 * x).tolist(), "frame": pd.DataFrame(2 * x.numpy())}
    given["read-only"] = np.broadcast_to(x.numpy() * 2, (5, 6))
    for name, maps in given.items():
        out = lx.Explainer(name, lambda *_, maps=maps: maps)(None, x)
        assert not out.requires_grad
        torch.testing.assert_close(out, 2 * x)
    for bad, error in ((x[:4], ValueError), (x.flatten(), ValueError), (None, TypeError), ([["a"] * 6] * 5, TypeError)):
        with pytest.raises(error, match=r"^explainer 'odd' must return maps of "):
            lx.Explainer("odd", lambda *_, bad=bad: bad)(None, x)


def test_explainers_see_what_was_passed_and_the_model_in_evaluation_mode(x):
    net = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).double().train()
    frame, seen = pd.DataFrame(x.numpy(), columns=list("abcdef")), []

    def look(model, x, target):
        seen.append((model, x, target, model[1].training))
        return np.zeros(x.shape)

    explainer = lx.Explainer("look", look, like=lx.smoothgrad())
    with pytest.warns(UserWarning, match="training mode"):
        lx.faithfulness(net, frame, explainer, lx.c_lime(), target=[0, 1, 2, 0, 1], n_samples=50)
    ((model, inputs, target, training),) = seen
    assert (model, target, training) == (net, [0, 1, 2, 0, 1], False)
    assert inputs is frame
    assert net.training
    assert net[1].training


# ---- captum's maps have the numbers of our own


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("intercept", ["refitted", "through_x"])
def test_captums_maps_are_as_faithful_as_our_own(three_outputs, x, pair, intercept):
    ours, theirs = PAIRS[pair]
    n = {"ours": STEPS, "captum": 1, **dict.fromkeys(COLUMNS, N)}
    for target in (1, [2, 0, 1, 1, 0]):
        found = lx.faithfulness(
            *(three_outputs, x, {"ours": ours, "captum": theirs}, COLUMNS),
            target=target,
            n_samples=n,
            intercept=intercept,
        )
        for value in ("error", "regret", "violation"):
            wide = found.table.pivot_table(index=["neighbourhood", "instance"], columns="method", values=value)
            rtol, atol = CLOSE[pair]
            np.testing.assert_allclose(wide["captum"], wide["ours"], rtol=rtol, atol=atol)
        assert errors(found).loc["noise", "ours"].min() > 1e-6  # and not both zero


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("where", ["masks", "noise"])
def test_captums_maps_are_recommended_like_our_own(tanh_net, x, pair, where):
    ours, theirs = PAIRS[pair]
    methods = {"ours": ours, "captum": theirs, "other": lx.occlusion(0.9)}
    answer = lx.recommend(tanh_net, x, COLUMNS[where], methods=methods, n_samples=STEPS, replicates=3)
    table = answer.table.set_index("method")
    for column in ("error", "r2"):
        assert table.loc["captum", column] == pytest.approx(table.loc["ours", column], rel=CLOSE[pair][0])
    if pair == "Saliency":
        assert answer.winner not in ("ours", "captum")  # neither is better than the other


def test_captums_maps_are_perturbed_and_drawn_like_our_own(tanh_net, x):
    for ours, theirs in PAIRS.values():
        parts = {
            "ours": ours,
            "captum": theirs,
            "array": lx.explain(tanh_net, x, ours, n_samples=STEPS).weights.numpy(),
        }
        for kind in ("bottom", "insertion"):
            test = lx.perturbation_test(tanh_net, x, parts, kind=kind, n_samples=STEPS)
            auc = test.auc().pivot_table(index="instance", columns="method", values="auc")
            np.testing.assert_allclose(auc["captum"], auc["ours"], rtol=1e-9)
            np.testing.assert_allclose(auc["array"], auc["ours"], rtol=1e-9)


# ---- other people's numbers


def linear(d=6):
    slope = torch.linspace(-1, 2, d, dtype=torch.float64)
    return slope, lambda rows: rows.flatten(1) @ slope + 0.7


@pytest.mark.parametrize("grouped", [None, LABELS, OWN_LABELS], ids=["entries", "features", "features of each"])
def test_contributions_to_a_linear_model_have_no_error_on_masks(x, grouped):
    """As shap gives them: w ⊙ (x − b), of every entry or added up within features."""
    slope, model = linear()
    entries, base = slope * (x - BASE), model(torch.full((1, 6), BASE, dtype=x.dtype))
    like = lx.kernel_shap(BASE, grouped)
    values = entries
    if grouped is not None:
        values = torch.full((5, int(grouped.max()) + 1), torch.nan, dtype=x.dtype)
        for i, labels in enumerate(grouped.expand(5, 6)):
            for j in labels.unique():
                values[i, j] = entries[i, labels == j].sum()
    e = lx.as_explanation(values, x, like, intercept=float(base))
    columns = {
        "masks": lx.Multiplicative(lx.FairMasks(), BASE, grouped),
        "Shapley": like,
        "Occlusion": lx.occlusion(BASE, grouped),
        "path": lx.integrated_gradients(BASE, grouped),
    }
    for intercept in ("refitted", "fitted", "through_x"):
        table = lx.faithfulness(model, x, e, columns, n_samples=64, intercept=intercept).table
        assert table["error"].max() < 1e-20
        assert table["violation"].max() < 1e-12
    torch.testing.assert_close(e.predict(x), model(x))
    torch.testing.assert_close(e.weights, lx.explain(model, x, like, n_samples=64).weights, equal_nan=True)


def test_slopes_of_a_linear_model_have_no_error_in_noise(x):
    slope, model = linear()
    for given in (slope.expand(5, 6), slope.expand(5, 6).tolist(), pd.DataFrame([slope.tolist()] * 5)):
        e = lx.as_explanation(given, x, lx.vanilla_gradients(), name="Saliency")
        found = lx.faithfulness(model, x, e, {"noise": lx.c_lime(0.5), "masks": lx.lime(4.0, BASE)}, n_samples=64)
        assert found.table["error"].max() < 1e-20
        assert found.table["method"].unique() == ["Saliency"]


@pytest.mark.parametrize("labels", [LABELS, OWN_LABELS], ids=["shared", "of each"])
def test_maps_and_weights_of_features_are_one_thing(tanh_net, x, labels):
    """captum lays a feature's number out on all its entries; `on_input` does, too."""
    like = lx.occlusion(BASE, labels)
    ours = lx.explain(tanh_net, x, like)
    mask = labels.expand(5, 6)
    maps = torch.cat(
        [FeatureAblation(tanh_net).attribute(x[i : i + 1], BASE, feature_mask=mask[i : i + 1]) for i in range(5)]
    )
    e = lx.as_explanation(maps, x, like)
    assert e.weights.shape == ours.weights.shape
    torch.testing.assert_close(e.weights, ours.weights, rtol=1e-9, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(e.on_input(), maps)
    zeros = ours.weights.nan_to_num()  # a number for features that an instance has not is no weight
    torch.testing.assert_close(lx.as_explanation(zeros, x, like).weights, ours.weights, rtol=0, atol=0, equal_nan=True)
    for i, one in enumerate(e):
        torch.testing.assert_close(one.on_input(), maps[i : i + 1])
    joined = lx.concat(list(e))
    torch.testing.assert_close(joined.weights, e.weights, rtol=0, atol=0, equal_nan=True)


def test_what_nobody_knows_is_nan(x, tmp_path):
    slope, model = linear()
    frame = pd.DataFrame(x.numpy(), columns=list("abcdef"))
    e = lx.as_explanation(slope.expand(5, 6), frame, lx.smoothgrad(), name="mine")
    assert e.feature_names == list("abcdef")
    assert e.method.name == "mine"
    assert e.n_samples.tolist() == [0] * 5
    for part in (e.loss, e.r2, e.standard_error, e.intercept, e.degrees_of_freedom, *e.interval(), e.predict(x)):
        assert part.isnan().all()
    assert "mine" in repr(e)
    assert e.to_frame()["weight"].tolist() == pytest.approx(slope.tolist() * 5)
    for use in (e.validate, lx.load(e.save(tmp_path / "e")).validate):
        with pytest.raises(ValueError, match="validate needs the model, which a loaded or given explanation has not"):
            use()
    ax = e.plot(plt.figure().add_subplot(), top=6)
    assert sorted(bar.get_width() for bar in ax.patches) == pytest.approx(sorted(slope.tolist()))
    back = lx.load(e.save(tmp_path / "e"))
    assert torch.equal(back.weights, e.weights)
    known = lx.as_explanation(slope.expand(5, 6), x, lx.smoothgrad(), intercept=model(x))
    torch.testing.assert_close(known.predict(x / 2), model(x / 2))
    torch.testing.assert_close(lx.load(known.save(tmp_path / "k")).predict(x / 2), model(x / 2))


def test_numbers_are_copied(x):
    for values in (x.numpy().copy(), x.clone()):
        e = lx.as_explanation(values, x, lx.smoothgrad())
        values[:] = 0
        assert torch.equal(e.weights, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's, about arrays that are read-only
        lx.as_explanation(np.broadcast_to(np.ones(6), (5, 6)), x, lx.smoothgrad())


def test_bad_numbers_are_refused_with_a_sentence(tanh_net, x):
    hole = x.clone()
    hole[1, 2] = torch.nan
    grouped = lx.kernel_shap(features=LABELS)
    for (values, like), error, words in [
        ((x[:, :4], lx.smoothgrad()), ValueError, r"values have shape \(5, 4\), x \(5, 6\): give maps of x's shape"),
        ((x[:3], lx.kernel_shap()), ValueError, r"values have shape \(3, 6\)"),
        ((x[0], lx.smoothgrad()), ValueError, r"values have shape \(6,\)"),
        ((3.0, lx.smoothgrad()), ValueError, r"values have shape \(\)"),
        ((x[:, :, None].expand(5, 6, 3), grouped), ValueError, r"values have shape \(5, 6, 3\)"),
        ((hole, lx.smoothgrad()), ValueError, "values have NaN or infinite numbers"),
        ((hole, grouped), ValueError, "values have NaN or infinite numbers"),
        ((hole[:, :3], grouped), ValueError, "values have NaN or infinite numbers"),
        ((x, grouped), ValueError, "a map must have one value on all entries of a feature"),
        ((1e-9 * x, grouped), ValueError, "a map must have one value on all entries of a feature"),
        ((x[:, :2], grouped), ValueError, "there are 2 weights per instance for 3 features"),
        ((x[:, :4], grouped), ValueError, "there are 4 weights per instance for 3 features"),
        (([["a"] * 6] * 5, lx.smoothgrad()), TypeError, "values must hold numbers, got "),
        ((x, lx.kernel_shap(torch.zeros(4))), ValueError, "baseline must be a number, one input of shape"),
        ((x, lx.kernel_shap(features=[0, 1])), ValueError, "features has shape"),
    ]:
        with pytest.raises(error, match=f"^{words}"):
            lx.as_explanation(values, x, like)
        if isinstance(values, torch.Tensor):
            with pytest.raises(error, match=f"^method 'given': {words}"):
                lx.faithfulness(tanh_net, x, values, lx.c_lime(), like=like)
    for inputs, words in ((x[0], "x needs a batch axis first"), (x[:0], "x is empty"), (hole, "x has NaN")):
        with pytest.raises(ValueError, match=words):
            lx.as_explanation(inputs, inputs, lx.smoothgrad())
    for intercept in ([1.0, 2.0], "one", torch.zeros(5, 1)):
        with pytest.raises(ValueError, match="intercept must be a number, or one for each of 5 instances"):
            lx.as_explanation(x, x, lx.smoothgrad(), intercept=intercept)
    plain = as_a_user_imports_it()  # without checks of types
    for like in (plain.Additive(plain.Normal(0.1)), "kernel_shap", plain.lime):
        with pytest.raises(TypeError, match=r"^like must be the Method whose units the values have, such as lx"):
            plain.as_explanation(x, x, like)


# ---- everything that explains enters everywhere


def forms(model, x, method, target=None):
    """One explanation in all forms, alone and named."""
    e = lx.explain(model, x, method, n_samples=N, target=target)
    explainer = lx.Explainer(method.name, lambda *_: e.on_input(), like=method)
    alone = {"Method": method, "Explanation": e, "Explainer": explainer, "of a Method": method.explainer(n_samples=N)}
    alone |= {"array": e.weights.numpy(), "tensor": e.weights}
    return {**alone, "list": [explainer], "dict": {method.name: e.weights.numpy()}}


@pytest.mark.parametrize("method", [lx.kernel_shap(BASE), lx.smoothgrad(0.3)], ids=lambda m: m.name)
def test_every_form_enters_every_evaluation_with_the_same_numbers(tanh_net, x, method):
    settings = {"n_samples": N, "like": method}
    faithful, recommended, perturbed = {}, {}, {}
    for name, part in forms(tanh_net, x, method).items():
        found = lx.faithfulness(tanh_net, x, part, COLUMNS, **settings).table
        faithful[name] = found.pivot_table(index="instance", columns="neighbourhood", values="error")
        answer = lx.recommend(tanh_net, x, COLUMNS["noise"], methods=part, replicates=2, **settings).table
        recommended[name] = answer.set_index("method")
        perturbed[name] = lx.perturbation_test(tanh_net, x, part, n_samples=N).changes["change"]
        called = method.name if name not in ("array", "tensor") else "given"
        assert found["method"].unique() == [called]
        assert set(recommended[name].index) == {called, "designed for it"}
        recommended[name] = recommended[name].rename(index={called: "it"})
    for name in faithful:
        np.testing.assert_allclose(faithful[name], faithful["Method"], rtol=1e-9, atol=1e-14, err_msg=name)
        np.testing.assert_allclose(perturbed[name], perturbed["Method"], rtol=1e-9, err_msg=name)
        of = "Method" if name == "Method" else "Explanation"  # others keep their seed
        errors = (recommended[one].loc["it", "error"] for one in (name, of))
        np.testing.assert_allclose(*errors, rtol=1e-9, err_msg=name)


def test_pictures_take_every_form(three_outputs):
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), *three_outputs).double().eval()
    for method in (lx.gradient_x_input(), lx.kernel_shap(features=lx.patches((4, 4), 2))):
        parts = forms(net, x, method, target=[0, 2])
        maps = parts["Explanation"].on_input()
        parts |= {"array": maps.numpy(), "tensor": maps[:, 0], "dict": {"a": maps.tolist()}}
        shown = []
        for name, part in parts.items():
            figure = lx.pictures(x, part, model=net, target=[0, 2], n_samples=N)
            drawn = [ax.images[0].get_array() for ax in figure.axes if ax.images and ax.get_label() != "<colorbar>"]
            shown.append(np.stack(drawn[1:4:2]))
            rtol = 1e-5 if name == "dict" else 1e-9  # a list of numbers is float32
            np.testing.assert_allclose(shown[-1], maps[:, 0].numpy(), rtol=rtol, atol=1e-7 * rtol, err_msg=name)
            plt.close(figure)
    for part in (lx.occlusion(), lx.occlusion().explainer()):
        with pytest.raises(TypeError, match=r"'Occlusion' is a (Method|Explainer): to run it the model is needed"):
            lx.pictures(x, part)


def test_one_neighbourhood_or_method_is_a_column_by_itself(tanh_net, x):
    for column, name in ((lx.Additive(lx.Normal(0.4)), "Additive"), (lx.c_lime(0.4), "C-LIME")):
        table = lx.faithfulness(tanh_net, x, lx.vanilla_gradients(), column, n_samples=N).table
        assert table["neighbourhood"].unique() == [name]
        assert table["method"].unique() == ["Vanilla Gradients"]


def test_numbers_without_units_are_refused(tanh_net, x):
    bare = lx.Explainer("bare", captum_saliency)
    for name, part in (("given", x), ("given", x.numpy()), ("bare", bare), ("mine", {"mine": x})):
        for call in (
            lambda p: lx.faithfulness(tanh_net, x, p, lx.c_lime()),
            lambda p: lx.recommend(tanh_net, x, lx.c_lime().neighbourhood, methods=p),
        ):
            with pytest.raises(
                TypeError, match=f"^method '{name}': nothing says what its numbers are weights of.*like="
            ):
                call(part)
    own = lx.Explainer("own", captum_saliency, like=lx.vanilla_gradients())
    one, other = (
        lx.faithfulness(tanh_net, x, p, lx.c_lime(0.4), n_samples=N, like=like).matrix().to_numpy()
        for p, like in ((bare, lx.smoothgrad()), (own, lx.kernel_shap()))  # what an Explainer says of itself counts
    )
    np.testing.assert_array_equal(one, other)


def test_maps_that_approximate_nothing_are_ranked_and_drawn_and_have_no_error(x):
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).double().eval()

    def guided(model, x, target):
        return GuidedBackprop(model).attribute(x.clone().requires_grad_(), target)

    with torch.random.fork_rng():
        explainer = lx.Explainer("Guided Backprop", guided, is_function_approximation=False, like=lx.smoothgrad())
    for call in (
        lambda: lx.faithfulness(net, x, explainer, lx.c_lime()),
        lambda: lx.recommend(net, x, lx.c_lime().neighbourhood, methods=[explainer, lx.c_lime()]),
    ):
        with pytest.raises(TypeError, match=r"^method 'Guided Backprop': its maps approximate no function, so"):
            call()
    assert lx.perturbation_test(net, x, [explainer, lx.vanilla_gradients()]).summary()["method"].nunique() == 2


def test_what_is_no_explanation_is_refused_everywhere(tanh_net, x):
    where = lx.Additive(lx.Normal(0.3))
    for part in (where, "lime", 3, lx.lime):
        for call in (
            lambda p: lx.faithfulness(tanh_net, x, p, lx.c_lime()),
            lambda p: lx.recommend(tanh_net, x, where, methods=p),
            lambda p: lx.perturbation_test(tanh_net, x, p),
            lambda p: lx.pictures(x, p),
        ):
            with pytest.raises(TypeError, match="must be a Method, an Explanation, an Explainer or an array, a list"):
                call(part)
    with pytest.raises(ValueError, match="methods has several of the name captum IG; give a dict of names"):
        lx.faithfulness(tanh_net, x, [IG, IG], lx.c_lime())


# ---- what it costs


@pytest.fixture
def counted(three_outputs):
    """A model that counts its calls: rows of each."""
    rows = []

    def model(x):
        rows.append(len(x))
        return three_outputs(x)

    return model, rows


def given_maps(*_):
    return torch.ones(5, 6, dtype=torch.float64)


CALLS = {
    "explain": lambda f, x: lx.explain(f, x, lx.c_lime(), n_samples=60, target=0),
    "explain_mean": lambda f, x: lx.explain_mean(f, x, lx.c_lime(), n_samples=60, target=0, replicates=3),
    "faithfulness": lambda f, x: lx.faithfulness(
        *(f, x, [lx.c_lime(), lx.smoothgrad(), lx.Explainer("maps", given_maps, like=lx.smoothgrad())], list(METHODS)),
        target=0,
        n_samples=60,
        replicates=3,
        intercept="through_x",
    ),
    "recommend": lambda f, x: lx.recommend(f, x, METHODS[0].neighbourhood, target=0, n_samples=60, replicates=3),
    "perturbation_test": lambda f, x: lx.perturbation_test(f, x, [lx.c_lime(), lx.occlusion()], target=0),
}
METHODS = (lx.c_lime(0.5), lx.kernel_shap(features=LABELS))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_a_call_asks_a_model_again_once(name, counted, x):
    """That is a call of eight rows; there are five instances."""
    model, rows = counted
    CALLS[name](model, x)
    assert len(rows) > 1
    assert sum(n == 8 for n in rows) == 1


def test_explanations_and_arrays_cost_no_call_beyond_the_columns(counted, x):
    model, rows = counted
    e = lx.explain(model, x, lx.c_lime(), n_samples=60, target=0)
    rows.clear()
    parts = {"explanation": e, "array": e.weights.numpy(), "maps": lx.Explainer("m", given_maps)}
    lx.faithfulness(model, x, parts, METHODS[0], target=0, n_samples=60, like=lx.smoothgrad())
    assert sum(rows) == 8 + 5 * 60
    rows.clear()
    lx.as_explanation(e.weights, x, lx.smoothgrad())
    e.predict(x)
    e[:2].on_input()
    lx.concat([e, e])
    assert rows == []
    e[:2].validate(30)
    assert rows == [60]
