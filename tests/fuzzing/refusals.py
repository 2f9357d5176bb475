"""Calls that must be refused, and unusual ones that mean the same as a usual one."""

import numpy as np
import pandas as pd
import torch
from torch import nn

import locapprox as lx

from .areas import refused
from .around import quick, same
from .oracle import Wrong, close
from .things import Task, frame

F64 = torch.float64
NO = {
    "None": None,
    "text": "a",
    "list": [1],
    "NaN": float("nan"),
    "half": 0.5,
    "−1": -1,
    "0": 0,
    "True": True,
    "dict": {},
}
NUMBERS = {key: NO[key] for key in ("text", "list", "NaN", "−1", "dict")}
LEVELS = NUMBERS | {"95": 95, "1.5": 1.5, "0": 0, "1": 1, "tensor": torch.ones(2)}
PARTS = {"a class": lx.FairMasks, "number": 3, "text": "lime", "None": None, "a function": len}
TARGETS = {
    "text": "a",
    "half": 0.5,
    "beyond": 7,
    "−1": -1,
    "too few": [0],
    "range(9)": range(9),
    "empty range": range(0),
    "None": None,
    "raising": lambda out: 1 / 0,
    "mean of all": lambda out: out.mean(),
    "nothing": lambda out: None,
    "NaN": [0, float("nan"), 1],
    "dict": {},
    "Booleans": [True, False, True],
}
WEIGHTS = {
    "text": "a",
    "short": np.ones((3, 2)),
    "fewer": np.ones((2, 4)),
    "NaN": np.full((3, 4), np.nan),
    "objects": np.full((3, 4), "a"),
    "complex": np.ones((3, 4)) + 0j,
    "ragged": [[1.0], [1.0, 2.0]],
    "None": None,
    "empty": {},
    "numbers": 3,
}
FEATURES = {
    "text": list("abcd"),
    "float": [0.0, 1.0, 1.0, 0.0],
    "a hole": [0, 1, 1, 3],
    "negative": [0, -1, 1, 2],
    "short": [0, 1, 2],
    "number": 3,
    "dict": {},
    "Booleans": np.ones(4, bool),
    "of two instances": np.zeros((2, 4), int),
    "complex": np.ones(4) + 0j,
    "empty": [],
}
BASELINES = {
    "text": "a",
    "short": np.ones(3),
    "NaN": np.nan,
    "complex": torch.ones(4) + 0j,
    "complex number": 1j,
    "of two instances": np.ones((2, 4)),
    "objects": np.full(4, None),
    "None": None,
    "raising": lambda x: 1 / 0,
    "nothing": lambda x: None,
    "short function": lambda x: x[:, 1:],
    "numpy function": lambda x: x.numpy(),
    "random function": lambda x: torch.randn_like(x),
    "of the batch": lambda x: x.mean(0).expand_as(x),
    "in place": lambda x: x.mul_(0.5),
    "empty": np.ones((0, 4)),
    "dict": {},
}


class Kit:
    """A task, instances, explanations and a test of them."""

    def __init__(self, chance):
        self.f, self.two = Task(chance, 4), Task(chance, 4, 2)
        self.x = torch.from_numpy(chance.normal(3, 4))
        self.e = quick(self.f, self.x, lx.c_lime(0.5))
        self.image = torch.from_numpy(np.abs(chance.normal(2, 3, 4, 5)))

    def explain(self, method=None, x=None, **settings):
        return quick(self.f, self.x if x is None else x, method or lx.c_lime(0.5), **settings)

    def test(self, *weights, **settings):
        return lx.perturbation_test(self.f, self.x, *(weights or [self.e]), **settings)

    def faith(self, *methods, where=lx.c_lime(0.5), **settings):  # noqa: B008
        return lx.faithfulness(
            self.f, self.x, *(methods or [self.e]), where, **{"progress": False, "n_samples": 60, **settings}
        )

    def best(self, where=None, **settings):
        return lx.recommend(
            self.f,
            self.x,
            where or lx.Additive(lx.Normal(0.5)),
            **{"progress": False, "n_samples": 60, "replicates": 2, **settings},
        )


def lime(*given, **settings):
    return lx.lime(99.0, *given, **settings)


# call -> what it is given; all must be refused
CALLS = {
    "n_samples": (lambda k, v: k.explain(n_samples=v), NO),
    "seed": (lambda k, v: k.explain(seed=v), {n: v for n, v in NO.items() if n != "0"}),
    "batch_size": (lambda k, v: k.explain(batch_size=v), {n: v for n, v in NO.items() if n != "None"}),
    "method": (
        lambda k, v: lx.explain(k.f, k.x, v, progress=False),
        PARTS | {"a neighbourhood": lx.Additive(lx.Normal(1.0))},
    ),
    "target": (lambda k, v: quick(k.two, k.x, lx.c_lime(0.5), target=v), TARGETS),
    "target of one": (
        lambda k, v: k.explain(target=v),
        {
            n: v
            for n, v in TARGETS.items()
            if n in ("text", "half", "beyond", "−1", "too few", "range(9)", "raising", "nothing")
        },
    ),
    "sigma": (
        lambda k, v: k.explain(lx.c_lime(v)),
        NO.keys() - {"half", "True", "list"}
        and {n: NO[n] for n in ("None", "text", "NaN", "−1", "0", "dict")}
        | {"two": torch.ones(2), "1e999": 1e999, "of (1, 4, 1)": torch.ones(1, 4, 1), "complex": 1j},
    ),
    "sigma of images": (
        lambda k, v: quick(Task(k.chance, 60), k.image, lx.c_lime(v)),
        {"channels last": torch.rand(4, 5, 3) + 0.1, "height": torch.rand(4) + 0.1},
    ),
    "width": (
        lambda k, v: k.explain(lx.lime(v)),
        {n: NO[n] for n in ("None", "text", "list", "NaN", "−1", "0", "dict")} | {"1e-200": 1e-200, "1e-6": 1e-6},
    ),
    "baseline": (lambda k, v: k.explain(lx.occlusion(v)), BASELINES),
    "background": (
        lambda k, v: k.explain(lx.kernel_shap(lx.Background(v))),
        {n: BASELINES[n] for n in ("text", "NaN", "None", "objects", "empty", "dict", "complex")}
        | {"one row": np.ones(4), "short": np.ones((3, 2))},
    ),
    "features": (lambda k, v: k.explain(lx.occlusion(0.0, v)), FEATURES),
    "k": (
        lambda k, v: k.explain(lx.Method("s", lx.Additive(lx.Normal(0.5)), lx.SquaredError(), lx.Sparse(v))),
        {n: v for n, v in NO.items()},
    ),
    "parts": (lambda k, v: lx.Method("m", v, lx.SquaredError()), {n: v for n, v in PARTS.items()}),
    "surrogate": (
        lambda k, v: lx.Method("m", lx.Additive(lx.Normal(0.5)), lx.SquaredError(), v),
        PARTS | {"Linear": lx.Linear},
    ),
    "loss": (lambda k, v: lx.Method("m", lx.Additive(lx.Normal(0.5)), v), PARTS | {"SquaredError": lx.SquaredError}),
    "loss weights": (
        lambda k, v: lx.SquaredError() * v,
        {n: NO[n] for n in ("text", "NaN", "−1", "0", "list", "dict", "None")},
    ),
    "distribution": (lambda k, v: lx.Additive(v), PARTS),
    "kernel": (
        lambda k, v: lx.Multiplicative(lx.FairMasks(), kernel=v),
        {n: v for n, v in PARTS.items() if n != "None"},
    ),
    "covariance": (
        lambda k, v: k.explain(lx.Method("c", lx.Additive(lx.CorrelatedNormal(v)), lx.SquaredError())),
        {
            "asymmetric": torch.eye(4) + torch.diag(torch.full((3,), 0.9), 1),
            "lower": torch.eye(4) + torch.diag(torch.full((3,), 0.9), -1),
            "negative": -torch.eye(4),
            "NaN": torch.full((4, 4), torch.nan),
            "small": torch.eye(3),
            "text": "a",
            "number": 3.0,
            "None": None,
            "list": [[1.0]],
        },
    ),
    "covariance of data": (
        lambda k, v: k.explain(lx.Method("c", lx.Additive(lx.CorrelatedNormal.of_data(v)), lx.SquaredError())),
        {
            "NaN": torch.full((9, 4), torch.nan),
            "few": torch.ones(2, 4),
            "text": "a",
            "None": None,
            "constant": torch.ones(9, 4),
        },
    ),
    "uniform": (
        lambda k, v: k.explain(lx.Method("u", lx.Multiplicative(lx.Uniform(*v)), lx.GradientMatching())),
        {"text": ("a", 1), "NaN": (0.0, float("nan")), "infinite": (0.0, float("inf")), "tensor": (torch.ones(2), 1)},
    ),
    "point": (
        lambda k, v: k.explain(lx.Method("u", lx.Additive(lx.PointMass(v)), lx.GradientMatching())),
        {"text": "a", "NaN": float("nan"), "None": None, "two": torch.ones(2)},
    ),
    "nearest": (
        lambda k, v: k.explain(lx.Method("n", lx.NearestPoints(*v), lx.SquaredError())),
        {
            "k 0": (torch.ones(9, 4), 0),
            "k 10": (torch.ones(9, 4), 10),
            "short": (torch.ones(9, 3), 3),
            "NaN": (torch.full((9, 4), torch.nan), 5),
            "text": ("a", 3),
            "one axis": (torch.ones(9), 3),
            "k half": (torch.ones(9, 4), 2.5),
        },
    ),
    "lime tabular": (
        lambda k, v: k.explain(lx.Method("n", lx.LimeTabular(*v), lx.SquaredError())),
        {
            "scale 0": (torch.zeros(4), torch.zeros(4)),
            "NaN mean": (torch.full((4,), torch.nan), torch.ones(4)),
            "NaN scale": (torch.zeros(4), torch.full((4,), torch.nan)),
            "short": (torch.zeros(3), torch.ones(3)),
            "text": ("a", "b"),
            "width −1": (torch.zeros(4), torch.ones(4), -1.0),
            "width text": (torch.zeros(4), torch.ones(4), "a"),
            "None": (None, None),
            "NaN data": None,
        },
    ),
    "index": (
        lambda k, v: k.e[v],
        {"text": "a", "pair": (0, 1), "None": None, "beyond": 7, "half": 0.5, "Booleans": [True], "dict": {}},
    ),
    "concat": (
        lambda k, v: lx.concat(v(k)),
        {
            "empty": lambda k: [],
            "numbers": lambda k: [1, 2],
            "None": lambda k: None,
            "methods": lambda k: [k.e, k.explain(lx.smoothgrad())],
            "shapes": lambda k: [k.e, quick(Task(k.chance, 2), k.x[:, :2], lx.c_lime(0.5))],
            "sigmas": lambda k: [k.e, k.explain(lx.c_lime(0.1))],
        },
    ),
    "interval": (lambda k, v: k.e.interval(v), LEVELS),
    "validate": (lambda k, v: k.e.validate(v), {n: v for n, v in NO.items()}),
    "predict": (
        lambda k, v: k.e.predict(v),
        {
            "text": "a",
            "short": np.ones((3, 3)),
            "fewer": np.ones((2, 4)),
            "complex": np.ones((3, 4)) + 0j,
            "None": None,
            "one axis": np.ones(4),
            "list": [[1.0] * 4] * 3,
            "NaN": np.full((3, 4), np.nan),
            "masked": np.ma.masked_array(np.ones((3, 4)), True),
        },
    ),
    "points": (lambda k, v: k.e.points(v), {n: v for n, v in NO.items() if n not in ("0",)} | {"3": 3}),
    "plot": (
        lambda k, v: k.e.plot(**v),
        {
            "instance 3": {"instance": 3},
            "score 1": {"score": 1},
            "top −1": {"top": -1},
            "top 0": {"top": 0},
            "top text": {"top": "a"},
            "instance text": {"instance": "a"},
            "ax": {"ax": 3},
            "instance −1": {"instance": -1},
        },
    ),
    "plot_points": (
        lambda k, v: k.e.plot_points(**v),
        {
            "instance 3": {"instance": 3},
            "features": {"features": (0, 9)},
            "one": {"features": (0,)},
            "text": {"features": ("a", "b")},
            "n": {"n": 0},
        },
    ),
    "explain_mean": (
        lambda k, v: lx.explain_mean(k.f, k.x, lx.c_lime(0.5), progress=False, **v),
        {
            "replicates 1": {"replicates": 1},
            "replicates text": {"replicates": "a"},
            "seed None": {"seed": None},
            "seed −1": {"seed": -1},
            "seed half": {"seed": 0.5},
            "n_samples": {"n_samples": 0},
        },
    ),
    "as_explanation": (lambda k, v: lx.as_explanation(v, k.x, lx.smoothgrad()), {n: v for n, v in WEIGHTS.items()}),
    "like": (lambda k, v: lx.as_explanation(k.e.weights, k.x, v), PARTS),
    "intercept": (
        lambda k, v: lx.as_explanation(k.e.weights, k.x, lx.smoothgrad(), intercept=v),
        {"text": "a", "two": [1.0, 2.0], "complex": 1j, "dict": {}},
    ),
    "Explainer": (
        lambda k, v: k.test(v),
        {
            "text": lx.Explainer("e", lambda m, x, t: "a"),
            "short": lx.Explainer("e", lambda m, x, t: x[:2]),
            "raises": lx.Explainer("e", lambda m, x, t: 1 / 0),
            "nothing": lx.Explainer("e", lambda m, x, t: None),
            "NaN": lx.Explainer("e", lambda m, x, t: x * torch.nan),
            "complex": lx.Explainer("e", lambda m, x, t: x + 0j),
        },
    ),
    "Explainer of": (
        lambda k, v: lx.Explainer("e", *v),
        {"number": (3,), "None": (None,), "like": (len, True, 3), "flag": (len, "yes")},
    ),
    "kind": (lambda k, v: k.test(kind=v), NO),
    "replace": (lambda k, v: k.test(replace=v), NO),
    "ties": (lambda k, v: k.test(ties=v), NO),
    "draws": (lambda k, v: k.test(replace="noise", draws=v), NO),
    "test sigma": (
        lambda k, v: k.test(replace="noise", sigma=v),
        {n: NO[n] for n in ("None", "text", "list", "NaN", "−1", "0", "dict")}
        | {"tensor": torch.ones(4), "infinite": float("inf"), "complex": 1j},
    ),
    "test seed": (lambda k, v: k.test(seed=v), {n: v for n, v in NO.items() if n != "0"}),
    "test batch_size": (lambda k, v: k.test(batch_size=v), {n: v for n, v in NO.items() if n != "None"}),
    "test baseline": (lambda k, v: k.test(baseline=v), BASELINES),
    "test features": (lambda k, v: k.test(features=v), FEATURES),
    "test target": (
        lambda k, v: lx.perturbation_test(k.two, k.x, k.e, target=v),
        TARGETS | {"range": range(2), "range(1)": range(1)},
    ),
    "test range": (lambda k, v: k.test(target=v), {"range(1)": range(1), "range(3)": range(3)}),
    "test weights": (lambda k, v: k.test(v), WEIGHTS),
    "curves": (lambda k, v: k.test().curves(v), LEVELS),
    "test summary": (lambda k, v: k.test().summary(level=v), LEVELS),
    "test compare": (lambda k, v: k.test({"a": k.e, "b": -k.e.weights}).compare(level=v), LEVELS),
    "auc": (lambda k, v: k.test().auc(v), {n: NO[n] for n in ("text", "list", "NaN", "half", "−1", "0", "dict")}),
    "faithfulness of": (lambda k, v: k.faith({"a": v}), {n: v for n, v in WEIGHTS.items() if n != "empty"} | PARTS),
    "faithfulness on": (lambda k, v: k.faith(where={"a": v}), PARTS),
    "faithfulness columns": (
        lambda k, v: k.faith(where=v),
        {"text": "a", "number": 3, "list": [lx.Additive(lx.Normal(1.0))]},
    ),
    "replicates": (lambda k, v: k.faith(replicates=v), NO),
    "faithfulness n": (lambda k, v: k.faith(n_samples=v), NO),
    "faithfulness level": (lambda k, v: k.faith(level=v), LEVELS),
    "faithfulness intercept": (lambda k, v: k.faith(intercept=v), NO),
    "faithfulness seed": (lambda k, v: k.faith(seed=v), {n: v for n, v in NO.items() if n != "0"}),
    "matrix": (lambda k, v: k.faith().matrix(v), {"text": "a", "None": None, "number": 3, "list": ["regret"]}),
    "recommend where": (
        lambda k, v: k.best(v),
        {n: v for n, v in PARTS.items() if n != "None"} | {"a method": lx.lime()},
    ),
    "recommend level": (lambda k, v: k.best(level=v), LEVELS),
    "recommend replicates": (lambda k, v: k.best(replicates=v), NO | {"1": 1}),
    "recommend methods": (
        lambda k, v: k.best(methods=v),
        {n: v for n, v in WEIGHTS.items() if n != "None"} | {n: v for n, v in PARTS.items() if n != "None"},
    ),
    "recommend loss": (lambda k, v: k.best(loss=v), PARTS),
    "others' explanation": (
        lambda k, v: v(k, quick(k.two, k.x + 0.5, lx.c_lime(0.5), target=0)),
        {
            "faithfulness": lambda k, e: k.faith(e),
            "recommend": lambda k, e: k.best(methods=e),
            "test": lambda k, e: k.test(e),
        },
    ),
    "explanation of another target": (
        lambda k, v: v(k, quick(k.two, k.x, lx.c_lime(0.5), target=1)),
        {
            "faithfulness": lambda k, e: lx.faithfulness(
                k.two, k.x, e, lx.c_lime(0.5), target=0, n_samples=60, progress=False
            ),
            "recommend": lambda k, e: lx.recommend(
                k.two, k.x, lx.Additive(lx.Normal(0.5)), methods=e, target=0, n_samples=60, progress=False
            ),
            "each": lambda k, e: lx.faithfulness(
                k.two, k.x, e, lx.c_lime(0.5), target=[0, 1, 0], n_samples=60, progress=False
            ),
            "test": lambda k, e: lx.perturbation_test(k.two, k.x, e, target=0),
        },
    ),
    "patches": (
        lambda k, v: lx.patches(*v),
        {
            "images": (torch.ones(2, 3, 4, 4), 2),
            "size 0": ((4, 4), 0),
            "size 9": ((4, 4), 9),
            "half": ((4, 4), 1.5),
            "text": ((4, 4), "a"),
            "one axis": ((4,), 2),
            "number": (4, 2),
            "three": ((4, 4), (1, 2, 3)),
            "None": (None, 2),
            "True": ((4, 4), True),
            "float shape": ((4.0, 4.0), 2),
            "tensor": ((4, 4), torch.tensor([1.5, 2.0])),
        },
    ),
    "per_channel": (
        lambda k, v: lx.per_channel(*v),
        {
            "half": (lx.patches((4, 4), 2), 2.5),
            "0": (lx.patches((4, 4), 2), 0),
            "text": (lx.patches((4, 4), 2), "a"),
            "no labels": (torch.ones(4, 4) / 2, 3),
            "None": (None, 3),
            "text labels": ("a", 3),
            "one axis": (torch.arange(4), 3),
            "negative": (-lx.patches((4, 4), 2), 3),
        },
    ),
    "superpixels": (
        lambda k, v: lx.superpixels(v.pop("x", k.image), **v),
        {
            "NaN labels": {"segment": lambda a: np.full(a.shape[:2], np.nan) + np.eye(*a.shape[:2])},
            "one segment": {"segment": lambda a: np.ones(a.shape[:2], int)},
            "raises": {"segment": lambda a: 1 / 0},
            "short": {"segment": lambda a: np.ones((2, 2), int)},
            "halves": {"segment": lambda a: np.arange(a[..., 0].size).reshape(a.shape[:2]) / 2},
            "text": {"segment": lambda a: "a"},
            "None": {"segment": lambda a: None},
            "no function": {"segment": 3},
            "table": {"x": torch.ones(3, 4)},
            "None x": {"x": None},
            "NaN x": {"x": torch.full((1, 3, 4, 4), torch.nan)},
        },
    ),
    "Blurred": (
        lambda k, v: lx.Blurred(v)(k.image),
        {n: NO[n] for n in ("None", "text", "list", "NaN", "−1", "0", "dict")} | {"infinite": float("inf")},
    ),
    "as_images channels": (lambda k, v: lx.as_images(k.image, v), {"1": 1, "text": "a", "half": 2.5}),
    "picture": (
        lambda k, v: lx.picture(**{"weights": k.image[0], **v}),
        {
            "sign": {"sign": "up"},
            "outliers": {"outliers": 100},
            "outliers text": {"outliers": "a"},
            "NaN outliers": {"outliers": float("nan")},
            "weights text": {"weights": "a"},
            "one axis": {"weights": np.ones(3)},
            "NaN": {"weights": np.full((3, 3), np.nan)},
            "image": {"image": np.ones((9, 9))},
            "image text": {"image": "a"},
            "limit": {"limit": "a"},
            "limit −1": {"limit": -1.0},
            "alpha": {"alpha": 3},
            "None": {"weights": None},
            "complex": {"weights": np.ones((3, 3)) + 0j},
        },
    ),
    "pictures": (
        lambda k, v: lx.pictures(**{"images": k.image, "attributions": k.image, **v}),
        {
            "names": {"names": ["a"]},
            "more names": {"names": ["a"] * 9},
            "names number": {"names": 3},
            "fewer": {"attributions": torch.ones(1, 4, 5)},
            "text": {"attributions": "a"},
            "None": {"attributions": None},
            "method": {"attributions": lx.lime()},
            "images text": {"images": "a"},
            "images None": {"images": None},
            "one image": {"images": torch.ones(4, 5)},
            "sign": {"sign": 3},
            "outliers": {"outliers": -1},
        },
    ),
    "check_neighbourhood": (lambda k, v: lx.check_neighbourhood(v, k.x), PARTS),
    "check_distribution": (lambda k, v: lx.check_distribution(v), PARTS),
    "check_surrogate": (lambda k, v: lx.check_surrogate(v), PARTS),
    "check on": (
        lambda k, v: lx.check_neighbourhood(lx.Additive(lx.Normal(1.0)), v),
        {
            "text": "a",
            "None": None,
            "one axis": torch.ones(3),
            "empty": torch.ones(0, 3),
            "NaN": torch.full((2, 3), torch.nan),
        },
    ),
    "ImageClassifier": (
        lambda k, v: lx.ImageClassifier(*v),
        {"None": (None, None), "text": ("a", "b"), "no processor": (nn.Identity(), None), "numbers": (3, 4)},
    ),
}


def must_be_refused(chance):
    """Arguments that are wrong."""
    kit = Kit(chance)
    kit.chance = chance
    call, table = chance.of("call", CALLS)
    given = chance.of("given", table)
    chance.subject = " ".join(chance.words[:2])
    given = dict(given) if isinstance(given, dict) else given
    refused(lambda: call(kit, given))


# call -> usual, unusual: the same
ALIKE = {
    "n_samples": lambda k: (k.explain(n_samples=60), k.explain(n_samples=np.int64(60))),
    "seed": lambda k: (k.explain(seed=3), k.explain(seed=np.uint8(3))),
    "sigma": lambda k: (k.explain(lx.c_lime(0.5)), k.explain(lx.c_lime(torch.full((4,), 0.5)))),
    "sigma array": lambda k: (k.explain(lx.c_lime(0.5)), k.explain(lx.c_lime(np.full(4, 0.5)))),
    "target": lambda k: (
        quick(k.two, k.x, lx.c_lime(0.5), target=1),
        quick(k.two, k.x, lx.c_lime(0.5), target=torch.tensor([1, 1, 1])),
    ),
    "target uint8": lambda k: (
        quick(k.two, k.x, lx.c_lime(0.5), target=1),
        quick(k.two, k.x, lx.c_lime(0.5), target=np.array([1, 1, 1], np.uint8)),
    ),
    "target series": lambda k: (
        quick(k.two, k.x, lx.c_lime(0.5), target=[1, 0, 1]),
        quick(k.two, k.x, lx.c_lime(0.5), target=pd.Series([1, 0, 1])),
    ),
    "features uint8": lambda k: (
        k.explain(lx.occlusion(0.0, [0, 1, 1, 2])),
        k.explain(lx.occlusion(0.0, np.array([0, 1, 1, 2], np.uint8))),
    ),
    "features int8": lambda k: (
        k.explain(lime(0.0, [0, 1, 1, 2])),
        k.explain(lime(0.0, torch.tensor([0, 1, 1, 2], dtype=torch.int8))),
    ),
    "baseline float32": lambda k: (k.explain(lx.occlusion(0.5)), k.explain(lx.occlusion(np.float32(0.5)))),
    "baseline int": lambda k: (k.explain(lx.occlusion(1.0)), k.explain(lx.occlusion(True))),
    "baseline list": lambda k: (k.explain(lx.occlusion(torch.arange(4.0))), k.explain(lx.occlusion([0, 1, 2, 3]))),
    "baseline of each": lambda k: (k.explain(lx.occlusion(0.5 * k.x)), k.explain(lx.occlusion(lambda x: 0.5 * x))),
    "background of one": lambda k: (
        k.explain(lx.kernel_shap(k.x[0])),
        k.explain(lx.kernel_shap(lx.Background(k.x[:1]))),
    ),
    "width": lambda k: (k.explain(lx.lime(99)), k.explain(lx.lime(np.float32(99)))),
    "wide": lambda k: (k.explain(lx.lime(1e9)), k.explain(lx.lime(1e200))),
    "lime tabular": lambda k: (
        k.explain(lx.Method("t", lx.LimeTabular(torch.zeros(4), torch.ones(4)), lx.SquaredError())),
        k.explain(lx.Method("t", lx.LimeTabular(np.zeros(4), np.ones(4)), lx.SquaredError())),
    ),
    "lime tabular numbers": lambda k: (
        k.explain(lx.Method("t", lx.LimeTabular(torch.zeros(4), torch.ones(4)), lx.SquaredError())),
        k.explain(lx.Method("t", lx.LimeTabular(0.0, 1.0), lx.SquaredError())),
    ),
    "nearest": lambda k: (
        k.explain(
            lx.Method(
                "t",
                lx.NearestPoints(k.x.repeat(5, 1) + torch.arange(15.0)[:, None].sin(), 9),
                lx.SquaredError(),
                lx.Sparse(1),
            )
        ),
        k.explain(
            lx.Method(
                "t",
                lx.NearestPoints((k.x.repeat(5, 1) + torch.arange(15.0)[:, None].sin()).numpy(), np.int64(9)),
                lx.SquaredError(),
                lx.Sparse(1),
            )
        ),
    ),
    "patches": lambda k: (
        (quick(Task(k.chance, 60), k.image, lx.occlusion(0.0, lx.patches((4, 5), 2))),) * 2
        if torch.equal(lx.patches((4, 5), np.int64(2)), lx.patches((4, 5), 2))
        else Wrong
    ),
}


def alike(chance):
    """Unusual arguments that mean a usual one."""
    kit = Kit(chance)
    kit.chance = chance
    same("unusual", *chance.of("call", ALIKE)(kit))


def owned(chance):
    """What the user changes afterwards changes no explanation."""
    kit = Kit(chance)
    b, data, labels = kit.x[0].clone(), kit.x.repeat(6, 1) + torch.randn(18, 4, dtype=F64), torch.tensor([0, 1, 1, 2])
    sigma, cov, x = torch.full((4,), 0.5), 0.2 * torch.eye(4, dtype=F64), kit.x.clone()
    held = {
        "x": (lx.c_lime(0.5), x),
        "baseline": (lx.kernel_shap(b), b),
        "numpy baseline": (lx.kernel_shap(b.numpy()), b),
        "background": (lx.kernel_shap(lx.Background(data)), data),
        "features": (lx.kernel_shap(0.0, labels), labels),
        "sigma": (lx.c_lime(sigma), sigma),
        "data": (lx.Method("n", lx.NearestPoints(data, 12), lx.SquaredError()), data),
        "covariance": (lx.Method("c", lx.Additive(lx.CorrelatedNormal(cov)), lx.SquaredError()), cov),
        "mean": (lx.Method("t", lx.LimeTabular(b, torch.ones(4)), lx.SquaredError()), b),
    }
    method, mine = chance.of("held", held)
    given = frame(x.numpy()) if chance.of("x as", ["tensor", "frame"]) == "frame" else x
    e = quick(kit.f, given, method)

    def shown():
        return {"x": e.x.clone(), "predict": e.predict(kit.x + 1), "validate": e.validate(50), "points": e.points(1)[1]}

    before = shown()
    mine.zero_() if mine is labels else mine.mul_(0.5)
    for name, after in shown().items():
        close(name, after, before[name], 0.0)
