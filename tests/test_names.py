"""Columns and rows go by their names wherever x has any: the numbers are those of what is in order, or a sentence."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import locapprox as lx

RNG = np.random.default_rng(0)
NAMES = ["a", "b", "c", "d"]
DATA = pd.DataFrame(RNG.normal(size=(40, 4)) * [1, 2, 3, 4] + [0, 5, -5, 9], columns=NAMES)
X = DATA[10:13].set_axis(["p", "q", "r"])
OTHER = ["c", "a", "d", "b"]  # the names in another order
LESS, MORE, RENAMED = DATA[["a", "b", "c"]], DATA.assign(e=DATA["a"]), DATA.rename(columns={"d": "e"})
WRONG = "is labelled otherwise than x: "
SLOPES = np.array([1.0, -2.0, 3.0, 0.5])


def model(frame):
    """Of a frame, by name, curved, so that baselines and places matter."""
    return frame["a"] - 2 * frame["b"] + 3 * frame["c"] + 0.5 * frame["d"] + 0.1 * frame["a"] * frame["b"]


def three(frame):
    return np.stack([frame["a"], 10 + frame["b"], 20 + frame["c"]], axis=1)


def squares(neighbourhood):
    return lx.Method("own", neighbourhood, lx.SquaredError())


def same(one, two):
    for name in ("weights", "intercept", "standard_error", "loss"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


# ---- parts that are given by name: f(data), f(the same in another order)

PARTS = {
    "baseline, one": lambda data: lx.kernel_shap(data.mean()),
    "baseline, each": lambda data: lx.kernel_shap(0.5 * data[:3].set_axis(list("pqr"))),
    "background": lambda data: lx.kernel_shap(lx.Background(data)),
    "masks": lambda data: squares(lx.Multiplicative(lx.FairMasks(), data.mean())),
    "labels": lambda data: lx.kernel_shap(features=pd.Series({"a": 0, "b": 1, "c": 1, "d": 2})[data.columns]),
    "sigma": lambda data: lx.c_lime(data.std()),
    "covariance": lambda data: squares(lx.Additive(lx.CorrelatedNormal(data.cov()))),
    "covariance of data": lambda data: squares(lx.Additive(lx.CorrelatedNormal.of_data(data))),
    "sigma, masked": lambda data: squares(lx.Multiplicative(lx.Normal(data.std()), data.mean())),
    "nearest points": lambda data: squares(lx.NearestPoints(data, 9)),
    "lime's data": lambda data: squares(lx.LimeTabular.of_data(data, 9.0)),
    "lime's numbers": lambda data: squares(lx.LimeTabular(data.mean(), data.std(), 9.0)),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_find_the_columns_of_x(name):
    ordered = lx.explain(model, X, PARTS[name](DATA), n_samples=64)
    e = lx.explain(model, X, PARTS[name](DATA[OTHER]), n_samples=64)
    same(e, ordered)
    assert torch.equal(e.validate(64), ordered.validate(64))
    torch.testing.assert_close(e.predict(X), ordered.predict(X), rtol=1e-12, atol=0)  # means of rows in another order
    assert torch.equal(e[1:].weights, ordered[1:].weights)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_taken_from_a_result_finds_the_columns_of_another_x(name):
    if name == "baseline, each":
        return  # of these instances alone
    method = lx.explain(model, X, PARTS[name](DATA[OTHER]), n_samples=64).method
    same(
        lx.explain(model, X[OTHER], method, n_samples=64), lx.explain(model, X[OTHER], PARTS[name](DATA), n_samples=64)
    )


@pytest.mark.parametrize("name", [name for name in PARTS if name != "labels"])
def test_other_names_are_refused(name):
    for data, words in ((LESS, "it lacks d"), (MORE, "it has e"), (RENAMED, "it lacks d and has e")):
        with pytest.raises(ValueError, match=rf"{WRONG}{words}; pass \w+\[x\.columns\], or"):
            lx.explain(model, X, PARTS[name](data), n_samples=64)


@pytest.mark.parametrize("name", PARTS)
def test_without_names_parts_are_in_order(name):
    """x an array, or the part one."""
    ordered = lx.explain(lambda a: model(pd.DataFrame(a, columns=NAMES)), X.to_numpy(), PARTS[name](DATA), n_samples=64)
    e = lx.explain(model, X, PARTS[name](DATA), n_samples=64)
    torch.testing.assert_close(e.weights, ordered.weights, rtol=1e-12, atol=1e-12)


def test_a_series_in_another_order_is_the_baseline_it_names():
    """A line's Shapley values are w (x − b)."""
    e = lx.explain(lambda a: a.to_numpy() @ SLOPES, X, lx.kernel_shap(DATA.mean()[OTHER]), n_samples=16)
    expected = SLOPES * (X - DATA.mean())
    np.testing.assert_allclose(e.weights, expected, rtol=0, atol=1e-10)


def test_baselines_of_instances_find_their_rows():
    base = 0.5 * X
    ordered = lx.explain(model, X, lx.occlusion(base))
    same(lx.explain(model, X, lx.occlusion(base.loc[["r", "p", "q"], OTHER])), ordered)
    labels = pd.DataFrame([[0, 1, 1, 2], [0, 0, 1, 2], [2, 1, 0, 0]], index=X.index, columns=NAMES)
    ordered = lx.explain(model, X, lx.occlusion(base, labels.to_numpy()))
    same(lx.explain(model, X, lx.occlusion(base, labels.loc[["r", "p", "q"], OTHER])), ordered)
    with pytest.raises(ValueError, match=rf"^baseline {WRONG}.*; pass baseline\.loc\[x\.index\], or"):
        lx.explain(model, X, lx.occlusion(base.set_axis(["p", "q", "s"])))


# ---- target, what the model returns


def test_a_target_goes_by_the_index():
    target = pd.Series([2, 0, 1], index=X.index)
    ordered = lx.explain(three, X, lx.occlusion(), target=[2, 0, 1])
    same(lx.explain(three, X, lx.occlusion(), target=target[["r", "p", "q"]]), ordered)
    e = lx.explain(lambda a: a[:, :3], X.to_numpy(), lx.occlusion(), target=pd.Series([2, 0, 1]))
    torch.testing.assert_close(e.weights, ordered.weights, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=rf"^target {WRONG}it lacks p, q, r and has 0, 1, 2; pass target\.loc\[x"):
        lx.explain(three, X, lx.occlusion(), target=pd.Series([2, 0, 1]))
    with pytest.raises(ValueError, match=rf"^target {WRONG}it has s; pass target\.loc\[x\.index\]"):
        lx.explain(three, X, lx.occlusion(), target=pd.Series([2, 0, 1, 1], index=list("pqrs")))


def test_what_a_model_returns_goes_by_the_index():
    """A model that sorts its rows and says so."""
    ordered = lx.explain(model, X, lx.kernel_shap(), n_samples=16)
    same(lx.explain(lambda frame: model(frame.sort_values("b")), X, lx.kernel_shap(), n_samples=16), ordered)
    e = lx.explain(lambda frame: model(frame.sort_values("b")).to_frame(), X, lx.kernel_shap(), n_samples=16, target=0)
    same(e, ordered)
    same(lx.explain(lambda frame: model(frame).set_axis(frame["a"]), X, lx.kernel_shap(), n_samples=16), ordered)


# ---- models that know names


class ByPlace:
    """An estimator that keeps the names it was fitted on and goes by places, as LightGBM does."""

    feature_name_ = NAMES

    def predict(self, frame):
        return np.asarray(frame) @ SLOPES


REORDERED = (
    r"^x has the model's columns in another order than the model was fitted on; pass x\[model\.feature_names_in_\]"
)


@pytest.mark.parametrize("bound", [False, True])
def test_a_model_that_goes_by_places_gets_its_own_order(bound):
    line = ByPlace()
    known = line.predict if bound else line
    np.testing.assert_allclose(lx.explain(known, X, lx.occlusion()).weights, SLOPES * X, rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match=REORDERED):
        lx.explain(known, X[OTHER], lx.occlusion())
    fitted = LinearRegression().fit(DATA, DATA @ SLOPES)
    with pytest.raises(ValueError, match=REORDERED):
        lx.explain(fitted.predict if bound else fitted, X[OTHER], lx.occlusion())


def test_a_model_that_goes_by_names_takes_any_order():
    chosen = ColumnTransformer([("numbers", StandardScaler(), NAMES)])
    pipe = make_pipeline(chosen, LogisticRegression()).fit(DATA, DATA["a"] > 0)
    e = lx.explain(pipe, X[OTHER], lx.occlusion(), target=1)
    ordered = lx.explain(pipe, X, lx.occlusion(), target=1)
    np.testing.assert_allclose(e.weights, ordered.weights[:, [NAMES.index(n) for n in OTHER]], rtol=0, atol=1e-12)
    assert e.feature_names == OTHER


# ---- afterwards


@pytest.mark.parametrize("features", [None, [0, 1, 1, 2]])
def test_predict_finds_the_columns_of_x(features, tmp_path):
    e = lx.explain(model, X, lx.kernel_shap(DATA.mean(), features), n_samples=16)
    given = lx.as_explanation(e.weights, X, lx.kernel_shap(DATA.mean(), features), intercept=e.intercept)
    for one in (e, lx.load(e.save(tmp_path / "e")), given, lx.concat([e[:1], e[1:]])):
        np.testing.assert_allclose(one.predict(X), model(X), rtol=0, atol=1e-9)
        assert torch.equal(one.predict(X[OTHER]), one.predict(X))
        assert torch.equal(one.predict(X.to_numpy()), one.predict(X))
        with pytest.raises(ValueError, match=rf"^inputs {WRONG}it lacks d and has e; pass inputs\["):
            one.predict(RENAMED[10:13])


def test_numbers_of_others_go_by_name():
    values = pd.DataFrame(RNG.normal(size=(3, 4)), index=X.index, columns=NAMES)
    e = lx.as_explanation(values.loc[["q", "r", "p"], OTHER], X, lx.smoothgrad())
    np.testing.assert_array_equal(e.weights, values)
    explainer = lx.Explainer("mine", lambda model, x, target: values[OTHER])
    np.testing.assert_array_equal(explainer(model, X), values)
    groups = pd.DataFrame(RNG.normal(size=(3, 2)), index=X.index, columns=["one", "two"])
    e = lx.as_explanation(groups.loc[["q", "r", "p"]], X, lx.kernel_shap(features=[0, 0, 1, 1]))
    np.testing.assert_array_equal(e.weights, groups)
    with pytest.raises(ValueError, match=rf"^values {WRONG}it lacks d and has e"):
        lx.as_explanation(values.rename(columns={"d": "e"}), X, lx.smoothgrad())


def test_evaluations_find_the_columns_of_x():
    methods = [lx.kernel_shap(), lx.lime(9.0)]
    tables = []
    for data in (DATA, DATA[OTHER]):
        columns = {"masks": lx.Multiplicative(lx.AllCoalitions(), data.mean()), "points": lx.NearestPoints(data, 20)}
        tables.append(lx.faithfulness(model, X, methods, columns, n_samples=32, progress=False).table)
    pd.testing.assert_frame_equal(*tables)
    labels = pd.Series({"a": 0, "b": 1, "c": 1, "d": 2})
    one, two = (
        lx.perturbation_test(model, X, lx.occlusion(DATA.mean(), given), baseline=mean, features=given, n_samples=16)
        for given, mean in ((labels, DATA.mean()), (labels[OTHER], DATA.mean()[OTHER]))
    )
    pd.testing.assert_frame_equal(one.changes, two.changes)


def test_the_contract_is_checked_on_the_columns_of_x():
    lx.check_neighbourhood(lx.NearestPoints(DATA[OTHER], 9), X)
    with pytest.raises(ValueError, match=f"^data {WRONG}"):
        lx.check_neighbourhood(lx.NearestPoints(RENAMED, 9), X)


def test_a_perturbation_test_finds_columns_and_rows():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(4, 3)), columns=list("abc"), index=list("wxyz"))
    weights = table.abs().add([1.0, 2.0, 3.0])

    def auc(given):
        f = lambda a: (a.to_numpy() * [1.0, -2.0, 3.0]).sum(1)  # noqa: E731
        return lx.perturbation_test(f, table, {"w": given}, kind="deletion").summary()["mean"].tolist()

    assert auc(weights) == auc(weights[["c", "a", "b"]]) == auc(weights.iloc[::-1])
    assert auc(weights) != auc(-weights)


def test_a_mean_by_name_and_a_scale_in_order():
    mean = pd.Series([1.0, 2.0, 3.0], index=list("cba"))
    with pytest.raises(ValueError, match="by name, or none of them"):
        lx.LimeTabular(mean, np.array([10.0, 20.0, 30.0]))
    table = pd.DataFrame(np.ones((2, 3)), columns=list("abc"))
    e = lx.explain(lambda a: a.sum(axis=1), table, lx.Method("", lx.LimeTabular(mean, 1.0), lx.SquaredError()))
    assert e.method.neighbourhood.names in (list("cba"), list("abc"))
