"""Calls that must be refused, unusual ones that mean the same as a usual one, and whose the numbers are."""

import numpy as np
import pandas as pd
import torch
from torch import nn

import locapprox as lx

from .areas import refused
from .around import quick, same
from .oracle import close
from .things import Task, frame

F64 = torch.float64
# a call | what stands for ? in it, one after the other; NO, NUMBER, … are the sets below. All must be refused.
SETS = {
    "NO": "None; 'a'; [1]; nan; .5; -1; 0; True; {}",
    "NEGATIVE": "None; 'a'; [1]; nan; .5; -1; True; {}",
    "COUNT": "'a'; [1]; nan; .5; -1; 0; True; {}",
    "SIZE": "None; 'a'; [1, 1]; nan; -1; 0; {}; 1j",
    "LEVEL": "'a'; [1]; nan; -1; 0; 1; 1.5; 95; {}; torch.ones(2)",
    "PART": "lx.FairMasks; 3; 'lime'; None; len",
    "TARGET": "'a'; .5; 7; -1; [0]; range(9); range(0); None; {}; [0, nan, 1]; [True, False, True]; "
    "lambda out: 1 / 0; lambda out: out.mean(); lambda out: None; lambda out: out",
    "WEIGHTS": "'a'; np.ones((3, 2)); np.ones((2, 4)); np.full((3, 4), nan); np.full((3, 4), 'a'); "
    "np.ones((3, 4)) + 0j; [[1.0], [1.0, 2.0]]; 3; np.ma.masked_array(np.ones((3, 4)), True)",
    "FEATURES": "list('abcd'); [0.0, 1, 1, 0]; [0, 1, 1, 3]; [0, -1, 1, 2]; [0, 1, 2]; 3; {}; np.ones(4, bool); "
    "np.zeros((2, 4), int); np.ones(4) + 0j; []",
    "BASELINE": "'a'; np.ones(3); nan; torch.ones(4) + 0j; 1j; np.ones((2, 4)); np.full(4, None); None; {}; "
    "np.ones((0, 4)); np.ma.masked_array(np.ones(4), True); lambda x: 1 / 0; lambda x: None; lambda x: x[:, 1:]; "
    "lambda x: x.numpy(); lambda x: torch.randn_like(x); lambda x: x.mean(0).expand_as(x); lambda x: x.mul_(.5)",
}
CALLS = """
k.explain(n_samples=?) | NO
k.explain(seed=?) | NEGATIVE
k.explain(batch_size=?) | COUNT
lx.explain(k.f, k.x, ?, progress=False) | PART; lx.Additive(lx.Normal(1.0))
quick(k.two, k.x, lx.c_lime(.5), target=?) | TARGET
k.explain(target=?) | 'a'; .5; 7; -1; [0]; range(9); lambda out: 1 / 0; lambda out: None
k.explain(lx.c_lime(?)) | SIZE; torch.ones(2); inf; torch.ones(1, 4, 1)
quick(k.on_images, k.image, lx.c_lime(?)) | torch.rand(4, 5, 3) + .1; torch.rand(4) + .1
k.explain(lx.lime(?)) | 'a'; [1, 1]; nan; -1; 0; {}; 1j; 1e-200; 1e-6
k.explain(lx.occlusion(?)) | BASELINE
k.explain(lx.kernel_shap(lx.Background(?))) | 'a'; nan; None; np.full((2, 4), nan); np.ones((0, 4)); {}; np.ones(4); np.ones((3, 2))
k.explain(lx.occlusion(0.0, ?)) | FEATURES
k.explain(k.fit(lx.Normal(.5), lx.Sparse(?))) | NO
lx.Method('m', ?, lx.SquaredError()) | PART
lx.Method('m', lx.Additive(lx.Normal(.5)), lx.SquaredError(), ?) | PART; lx.Linear
lx.Method('m', lx.Additive(lx.Normal(.5)), ?) | PART; lx.SquaredError
lx.SquaredError() * ? | 'a'; nan; -1; 0; [1]; {}; None
lx.Additive(?) | PART
lx.Multiplicative(lx.FairMasks(), kernel=?) | lx.FairMasks; 3; 'lime'; len
k.explain(k.fit(lx.CorrelatedNormal(?))) | torch.eye(4) + k.corner; torch.eye(4) + k.corner.T; -torch.eye(4); torch.full((4, 4), nan); torch.eye(3); 'a'; 3.0; None; [[1.0]]
k.explain(k.fit(lx.CorrelatedNormal.of_data(?))) | torch.full((9, 4), nan); torch.ones(2, 4); 'a'; None; torch.ones(9, 4)
k.explain(lx.Method('u', lx.Multiplicative(lx.Uniform(?)), lx.GradientMatching())) | 'a', 1; 0.0, nan; 0.0, inf; torch.ones(2), 1
k.explain(lx.Method('u', lx.Additive(lx.PointMass(?)), lx.GradientMatching())) | 'a'; nan; None; torch.ones(2)
k.near(?) | torch.ones(9, 4), 0; torch.ones(9, 4), 10; torch.ones(9, 3), 3; torch.full((9, 4), nan), 5; 'a', 3; torch.ones(9), 3; torch.ones(9, 4), 2.5
k.tabular(?) | torch.zeros(4), torch.zeros(4); torch.full((4,), nan), torch.ones(4); torch.zeros(4), torch.full((4,), nan); torch.zeros(3), torch.ones(3); 'a', 'b'; torch.zeros(4), torch.ones(4), -1.0; torch.zeros(4), torch.ones(4), 'a'; None, None
k.e[?] | 'a'; (0, 1); None; .5; [True]; {}
lx.concat(?) | []; [1, 2]; None; [k.e, k.explain(lx.smoothgrad())]; [k.e, k.explain(lx.c_lime(.1))]; [k.e, quick(k.on_images, k.image, lx.c_lime(.5))]
k.e.interval(?) | LEVEL
k.e.validate(?) | NO
k.e.predict(?) | 'a'; np.ones((3, 3)); np.ones((2, 4)); np.ones((3, 4)) + 0j; None; np.ones(4); [[1.0] * 4] * 3; np.ma.masked_array(np.ones((3, 4)), True)
k.e.points(?) | NEGATIVE; 3
k.e.plot(?) | instance=3; score=1; top=-1; top='a'; instance='a'
k.e.plot_points(?) | instance=3; features=(0, 9); features=(0,); features=('a', 'b'); n=0
lx.explain_mean(k.f, k.x, lx.c_lime(.5), progress=False, ?) | replicates=1; replicates='a'; seed=None; seed=-1; seed=.5; n_samples=0
lx.as_explanation(?, k.x, lx.smoothgrad()) | WEIGHTS; None
lx.as_explanation(k.e.weights, k.x, ?) | PART
lx.as_explanation(k.e.weights, k.x, lx.smoothgrad(), intercept=?) | 'a'; [1.0, 2.0]; 1j; {}
k.test(lx.Explainer('e', ?)) | lambda m, x, t: 'a'; lambda m, x, t: x[:2]; lambda m, x, t: 1 / 0; lambda m, x, t: None; lambda m, x, t: x * nan; lambda m, x, t: x + 0j
lx.Explainer('e', ?) | 3; None; len, 'yes'
k.test(kind=?) | NO
k.test(replace=?) | NO
k.test(ties=?) | NO
k.test(replace='noise', draws=?) | NO
k.test(replace='noise', sigma=?) | SIZE; torch.ones(4); inf
k.test(seed=?) | NEGATIVE
k.test(batch_size=?) | COUNT
k.test(baseline=?) | BASELINE
k.test(features=?) | FEATURES
lx.perturbation_test(k.two, k.x, k.e, target=?) | TARGET; range(2); range(1)
k.test(target=?) | range(1); range(3)
k.test(?) | WEIGHTS; None; {}
k.test().curves(?) | LEVEL
k.test().summary(level=?) | LEVEL
k.test({'a': k.e, 'b': -k.e.weights}).compare(level=?) | LEVEL
k.test().auc(?) | 'a'; [1]; nan; .5; -1; 0; {}
k.faith({'a': ?}) | WEIGHTS; PART
k.faith(where={'a': ?}) | PART
k.faith(where=?) | 'a'; 3; [lx.Additive(lx.Normal(1.0))]
k.faith(replicates=?) | NO
k.faith(n_samples=?) | NO
k.faith(level=?) | LEVEL
k.faith(intercept=?) | NO
k.faith(seed=?) | NEGATIVE
k.faith().matrix(?) | 'a'; None; 3; ['regret']
k.best(?) | lx.FairMasks; 3; 'lime'; len; lx.lime()
k.best(level=?) | LEVEL
k.best(replicates=?) | NO; 1
k.best(methods={'a': ?}) | WEIGHTS; PART
k.best(loss=?) | PART
k.of_others(?) | k.faith; k.test; lambda e: k.best(methods=e)
k.of_target_1(?) | lambda e: lx.faithfulness(k.two, k.x, e, lx.c_lime(.5), target=0, n_samples=60, progress=False); lambda e: lx.recommend(k.two, k.x, lx.Additive(lx.Normal(.5)), methods=e, target=0, n_samples=60, progress=False); lambda e: lx.faithfulness(k.two, k.x, e, lx.c_lime(.5), target=[0, 1, 0], n_samples=60, progress=False)
lx.patches(?) | torch.ones(2, 3, 4, 4), 2; (4, 4), 0; (4, 4), 9; (4, 4), 1.5; (4, 4), 'a'; (4,), 2; 4, 2; (4, 4), (1, 2, 3); None, 2; (4, 4), True; (4.0, 4.0), 2; (4, 4), torch.tensor([1.5, 2.0])
lx.per_channel(?) | lx.patches((4, 4), 2), 2.5; lx.patches((4, 4), 2), 0; lx.patches((4, 4), 2), 'a'; torch.ones(4, 4) / 2, 3; None, 3; 'a', 3; torch.arange(4), 3
lx.superpixels(k.image, ?) | lambda a: np.full(a.shape[:2], nan); lambda a: np.where(np.eye(*a.shape[:2]), nan, 1.0); lambda a: np.ones(a.shape[:2], int); lambda a: 1 / 0; lambda a: np.ones((2, 2), int); lambda a: np.arange(20).reshape(4, 5) / 2; lambda a: 'a'; lambda a: None; 3
lx.superpixels(?, lambda a: np.arange(16).reshape(4, 4)) | torch.ones(3, 4); None; torch.full((1, 3, 4, 4), nan); 'a'
lx.Blurred(?)(k.image) | SIZE; inf
lx.as_images(k.image, ?) | 1; 'a'; 2.5
lx.picture(?) | k.image[0], sign='up'; k.image[0], outliers=100; k.image[0], outliers='a'; k.image[0], outliers=nan; 'a'; np.ones(3); k.image[0], np.ones((9, 9)); k.image[0], 'a'; k.image[0], limit='a'; k.image[0], limit=-1.0; None; np.ones((3, 3)) + 0j
lx.pictures(?) | k.image, k.image, names=['a']; k.image, k.image, names=['a'] * 9; k.image, k.image, names=3; k.image, torch.ones(1, 4, 5); k.image, 'a'; k.image, None; k.image, lx.lime(); 'a', k.image; None, k.image; k.image[0, 0], k.image; k.image, k.image, sign=3; k.image, k.image, outliers=-1
lx.check_neighbourhood(?, k.x) | PART
lx.check_distribution(?) | PART
lx.check_surrogate(?) | PART
lx.check_neighbourhood(lx.Additive(lx.Normal(1.0)), ?) | 'a'; None; torch.ones(3); torch.ones(0, 3)
lx.ImageClassifier(?) | None, None; 'a', 'b'; nn.Identity(), None; 3, 4
"""  # noqa: E501

# usual | unusual: the same
ALIKE = """
k.explain(n_samples=60) | k.explain(n_samples=np.int64(60))
k.explain(seed=3) | k.explain(seed=np.uint8(3))
k.explain(lx.c_lime(.5)) | k.explain(lx.c_lime(torch.full((4,), .5)))
k.explain(lx.c_lime(.5)) | k.explain(lx.c_lime(np.full(4, .5)))
quick(k.two, k.x, lx.c_lime(.5), target=1) | quick(k.two, k.x, lx.c_lime(.5), target=torch.tensor([1, 1, 1]))
quick(k.two, k.x, lx.c_lime(.5), target=1) | quick(k.two, k.x, lx.c_lime(.5), target=np.array([1, 1, 1], np.uint8))
quick(k.two, k.x, lx.c_lime(.5), target=[1, 0, 1]) | quick(k.two, k.x, lx.c_lime(.5), target=pd.Series([1, 0, 1]))
k.explain(lx.occlusion(0.0, [0, 1, 1, 2])) | k.explain(lx.occlusion(0.0, np.array([0, 1, 1, 2], np.uint8)))
k.explain(lx.lime(99.0, 0.0, [0, 1, 1, 2])) | k.explain(lx.lime(99.0, 0.0, torch.tensor([0, 1, 1, 2], dtype=torch.int8)))
k.explain(lx.occlusion(.5)) | k.explain(lx.occlusion(np.float32(.5)))
k.explain(lx.occlusion(torch.arange(4.0))) | k.explain(lx.occlusion([0, 1, 2, 3]))
k.explain(lx.occlusion(.5 * k.x)) | k.explain(lx.occlusion(lambda x: .5 * x))
k.explain(lx.kernel_shap(k.x[0])) | k.explain(lx.kernel_shap(lx.Background(k.x[:1])))
k.explain(lx.lime(99)) | k.explain(lx.lime(np.float32(99)))
k.explain(lx.lime(1e9)) | k.explain(lx.lime(1e200))
k.tabular(torch.zeros(4), torch.ones(4)) | k.tabular(np.zeros(4), np.ones(4))
k.tabular(torch.zeros(4), torch.ones(4)) | k.tabular(0.0, 1.0)
k.near(k.cloud, 9) | k.near(k.cloud.numpy(), np.int64(9))
quick(k.on_images, k.image, lx.occlusion(0.0, lx.patches((4, 5), 2))) | quick(k.on_images, k.image, lx.occlusion(0.0, lx.patches((4, 5), np.int64(2))))
"""  # noqa: E501


class Kit:
    """A task, instances, explanations and a test of them."""

    def __init__(self, chance):
        self.f, self.two, self.on_images = Task(chance, 4), Task(chance, 4, 2), Task(chance, 60)
        self.x, self.image = torch.from_numpy(chance.normal(3, 4)), torch.from_numpy(np.abs(chance.normal(2, 3, 4, 5)))
        self.e, self.corner = self.explain(), torch.diag(torch.full((3,), 0.9), 1)
        self.cloud = torch.from_numpy(chance.normal(15, 4))
        self.names = {"k": self, "lx": lx, "np": np, "pd": pd, "torch": torch, "nn": nn, "quick": quick}
        self.names |= {"nan": float("nan"), "inf": float("inf")}

    def run(self, call):
        return eval(call, self.names)

    def fit(self, distribution, surrogate=lx.Linear()):  # noqa: B008
        return lx.Method("m", lx.Additive(distribution), lx.SquaredError(), surrogate)

    def explain(self, method=lx.c_lime(0.5), **settings):  # noqa: B008
        return quick(self.f, self.x, method, **settings)

    def near(self, *given):
        return self.explain(lx.Method("near", lx.NearestPoints(*given), lx.SquaredError()))

    def tabular(self, *given):
        return self.explain(lx.Method("tabular", lx.LimeTabular(*given), lx.SquaredError()))

    def test(self, *weights, **settings):
        return lx.perturbation_test(self.f, self.x, *(weights or [self.e]), **settings)

    def faith(self, *methods, where=lx.c_lime(0.5), **settings):  # noqa: B008
        settings = {"progress": False, "n_samples": 60, **settings}
        return lx.faithfulness(self.f, self.x, *(methods or [self.e]), where, **settings)

    def best(self, where=lx.Additive(lx.Normal(0.5)), **settings):  # noqa: B008
        settings = {"progress": False, "n_samples": 60, "replicates": 2, **settings}
        return lx.recommend(self.f, self.x, where, **settings)

    def of_others(self, call):
        return call(quick(self.f, self.x + 0.5, lx.c_lime(0.5)))

    def of_target_1(self, call):
        return call(quick(self.two, self.x, lx.c_lime(0.5), target=1))


def lines(text):
    return [tuple(part.strip() for part in line.split(" | ")) for line in text.strip().splitlines()]


def must_be_refused(chance):
    """Arguments that are wrong."""
    call, given = chance.of("call", lines(CALLS))
    for name, values in SETS.items():
        given = given.replace(name, values)
    chance.subject = call.replace("?", chance.of("given", given.split("; ")))
    chance.words, kit = [chance.subject], Kit(chance)
    refused(lambda: kit.run(chance.subject))


def alike(chance):
    """Unusual arguments that mean a usual one."""
    usual, unusual = chance.of("call", lines(ALIKE))
    chance.subject, chance.words, kit = unusual, [unusual], Kit(chance)
    same("unusual", kit.run(unusual), kit.run(usual))


def owned(chance):
    """What the user changes afterwards changes no explanation."""
    kit = Kit(chance)
    b, labels, sigma, x = kit.x[0].clone(), torch.tensor([0, 1, 1, 2]), torch.full((4,), 0.5), kit.x.clone()
    cov, data = 0.2 * torch.eye(4, dtype=F64), kit.cloud
    held = {
        "x": (lx.c_lime(0.5), x),
        "baseline": (lx.kernel_shap(b), b),
        "numpy baseline": (lx.kernel_shap(b.numpy()), b),
        "background": (lx.kernel_shap(lx.Background(data)), data),
        "features": (lx.kernel_shap(0.0, labels), labels),
        "sigma": (lx.c_lime(sigma), sigma),
        "data": (lx.Method("near", lx.NearestPoints(data, 12), lx.SquaredError()), data),
        "covariance": (kit.fit(lx.CorrelatedNormal(cov)), cov),
        "mean": (lx.Method("tabular", lx.LimeTabular(b, torch.ones(4)), lx.SquaredError()), b),
    }
    method, mine = chance.of("held", held)
    e = quick(kit.f, frame(x.numpy()) if chance.of("x as", ["tensor", "frame"]) == "frame" else x, method)

    def shown():
        return {"x": e.x.clone(), "predict": e.predict(kit.x + 1), "validate": e.validate(50), "points": e.points(1)[1]}

    before = shown()
    mine.copy_(mine.flip(0) if mine is labels else mine / 2)
    for name, after in shown().items():
        close(name, after, before[name], 0.0)
