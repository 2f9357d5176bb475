"""Rows about captum, shap, lime and saliency, on a small tanh network: the libraries are run, nothing is copied."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearModel
from captum.attr import FeatureAblation, IntegratedGradients, KernelShap, Lime, Saliency
from captum.attr._core.lime import get_exp_kernel_similarity_function
from scipy.stats import binom
from torch import Tensor, nn

import locapprox as lx

D = 8
X = torch.randn(6, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DRAWS = 400


@cache
def network() -> nn.Sequential:
    """D inputs, one output, float64."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(D, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    return net.requires_grad_(False).eval()


def off(a: Tensor, b: Tensor) -> float:
    """Mean L1 distance, as a share of b's mean norm."""
    return float((a - b).abs().sum(-1).mean() / b.abs().sum(-1).mean())


def ours(method: lx.Method, x: Tensor = X, n: int = DRAWS) -> Tensor:
    return lx.explain(network(), x, method, n_samples=n, progress=False).weights


def captum_kernel_shap(model: Callable[[Tensor], Tensor], x: Tensor, n: int = DRAWS) -> Tensor:
    """One call per instance, each with the same seed."""
    rows = []
    for one in x:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rows.append(KernelShap(model).attribute(one[None], n_samples=n, perturbations_per_eval=n))
    return torch.cat(rows)


def kernel() -> dict[str, float]:
    """captum's Gaussian kernel of width w and lime's, against ours of width √2 w."""
    from lime.lime_tabular import LimeTabularExplainer

    width, masks = 0.9, lx.AllCoalitions()
    rng, x = torch.Generator(), X[:1]
    draw = lx.Multiplicative(masks, kernel=lx.ExponentialKernel(2**0.5 * width)).draw(x, 1, rng)
    similarity = get_exp_kernel_similarity_function("euclidean", width)
    theirs = torch.tensor([float(similarity(x, x * mask, mask[None])) for mask in draw.xi])
    explainer = LimeTabularExplainer(np.random.default_rng(0).normal(size=(50, D)), mode="regression")
    where = lx.ExponentialKernel(2**0.5 * 0.75 * D**0.5, measured_in="xi")
    of_lime = lx.Multiplicative(masks, kernel=where).draw(x, 1, rng)
    distance = (1 - of_lime.xi).norm(dim=1).numpy()
    gap = of_lime.weight.flatten() / torch.from_numpy(explainer.base.kernel_fn(distance)) - 1
    return {
        "captum's weights ÷ ours − 1": float((theirs / draw.weight[0] - 1).abs().max()),
        "lime's weights ÷ ours − 1": float(gap.abs().max()),
    }


def ends() -> dict[str, float]:
    """captum's KernelShap, whose two end points weigh 1e6, in float32 and float64; and the same by normal equations."""
    net = network()
    single = net.float()
    low = captum_kernel_shap(single, X.float()).double()
    gap = (low.sum(1) - (single(X.float()) - single(0 * X[:1].float()))[:, 0].double()).abs().max()
    net.double()
    high = captum_kernel_shap(net, X)
    masks = torch.cat([torch.zeros(1, D), torch.ones(1, D), lx.FairMasks().draw(D, DRAWS, seeded(), torch.float32).xi])
    weight = torch.ones(len(masks), 1)
    weight[:2] = 1e6
    rows = torch.cat([masks, torch.ones(len(masks), 1)], 1)
    y = net(X[0] * masks.double())
    normal = torch.linalg.solve(rows.mT @ (weight * rows), rows.mT @ (weight * y.float()))[:-1, 0]
    root = weight.double().sqrt()
    exact = torch.linalg.lstsq(root * rows.double(), root * y).solution[:-1, 0]
    return {
        "captum, float32 against float64": off(low, high),
        "captum, float32, efficiency gap": float(gap),
        "normal equations in float32": off(normal.double()[None], exact[None]),
    }


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def sizes() -> dict[str, float]:
    """Sizes of captum's masks (its two ends left out) and the weight of shap's, against the Shapley kernel."""
    import shap

    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x)
        return network()(x)

    n = 5_000
    captum_kernel_shap(watched, torch.ones(1, D, dtype=torch.float64), n)
    size = torch.cat(seen).sum(1).long()
    count = torch.bincount(size, minlength=D + 1)[1:D].numpy()
    share = count / count.sum()
    k = np.arange(1, D)
    kernel = 1 / (k * (D - k))
    explainer = shap.KernelExplainer(lambda x: network()(torch.from_numpy(x)).numpy()[:, 0], np.zeros((1, D)))
    np.random.seed(0)  # noqa: NPY002 (what shap reads)
    explainer.shap_values(X[:1].numpy(), nsamples=100, l1_reg=False, silent=True)
    masks = explainer.maskMatrix[: explainer.nsamplesAdded]
    weight = explainer.kernelWeights[: explainer.nsamplesAdded]
    summed = np.bincount(masks.sum(1).astype(int), weight, D)[1:D]
    fair = binom.pmf(k, D, 0.5)
    return {
        "captum: shares of sizes − Shapley": float(np.abs(share - kernel / kernel.sum()).max()),
        "captum: shares of sizes − fair masks": float(np.abs(share - fair / fair.sum()).max()),
        "shap: weight of size 1 − Shapley": float(abs(summed[0] / summed.sum() - kernel[0] / kernel.sum())),
        "shap: masks of size 1": float((masks.sum(1) == 1).sum()),
    }


def nulls() -> dict[str, float]:
    """The largest weight of three features that sit at the baseline, as a share of the largest weight."""
    import shap

    x = X.clone()
    x[:, :3] = 0
    explainer = shap.KernelExplainer(lambda z: network()(torch.from_numpy(z)).numpy()[:, 0], np.zeros((1, D)))
    found = {
        "captum": captum_kernel_shap(network(), x, 60),
        "shap": torch.from_numpy(explainer.shap_values(x.numpy(), nsamples=60, l1_reg=False, silent=True)),
        "here": ours(lx.kernel_shap(), x, 60),
    }
    return {name: float(w[:, :3].abs().max() / w.abs().max()) for name, w in found.items()}


def occlusion() -> dict[str, float]:
    """captum's, and Table 1 read literally (one feature kept at a time), against ours."""
    removed = ours(lx.occlusion())
    kept = torch.stack([network()(X * row)[:, 0] for row in torch.eye(D)], 1) - network()(0 * X[:1])
    return {
        "captum − ours": off(FeatureAblation(network()).attribute(X), removed),
        "one feature kept − ours": off(kept, removed),
    }


def path() -> dict[str, float]:
    """Integrated Gradients with ξ a vector, and with one number ξ for all features, whose one weight is their sum."""
    each = ours(lx.integrated_gradients(rule=lx.GaussLegendre()), n=60)
    one = ours(lx.integrated_gradients(rule=lx.GaussLegendre(), features=[0] * D), n=60)
    theirs = IntegratedGradients(network()).attribute(X, n_steps=60, method="gausslegendre")
    return {"captum − ours": off(theirs, each), "one number − Σ w": off(one, each.sum(1, keepdim=True))}


def rule() -> dict[str, float]:
    """The order p of the error n^−p between n = 50 and 400 nodes, and the error of 50."""
    from saliency.core import INPUT_OUTPUT_GRADIENTS
    from saliency.core import IntegratedGradients as OfPAIR

    exact = ours(lx.integrated_gradients(rule=lx.GaussLegendre()), n=300)

    def gradients(x: np.ndarray, **_: object) -> dict[str, np.ndarray]:
        return {INPUT_OUTPUT_GRADIENTS: Saliency(network()).attribute(torch.from_numpy(x), abs=False).numpy()}

    def pair(n: int) -> Tensor:
        found = [OfPAIR().GetMask(x, lambda at, **more: gradients(at), x_steps=n, batch_size=n) for x in X.numpy()]
        return torch.from_numpy(np.stack(found))

    def captum(method: str) -> Callable[[int], Tensor]:
        return lambda n: IntegratedGradients(network()).attribute(X, n_steps=n, method=method)

    out: dict[str, float] = {}
    rules = {"captum's riemann_left": captum("riemann_left"), "captum's riemann_right": captum("riemann_right")}
    for name, run in (rules | {"saliency": pair}).items():
        few, many = (off(run(n), exact) for n in (50, 400))
        out |= {f"{name}: order": math.log(few / many) / math.log(8), f"{name}: error of 50": few}
    nested = ours(lx.integrated_gradients(), n=50)
    return (
        out
        | {"captum's gausslegendre: error of 50": off(captum("gausslegendre")(50), exact)}
        | {"nested: error of 50": off(nested, exact)}
    )


def smoothgrad() -> dict[str, float]:
    """saliency's defaults on f = w · x: its noise as a share of max x − min x, its answer against w²."""
    from saliency.core import INPUT_OUTPUT_GRADIENTS, GradientSaliency

    w, x, seen = np.linspace(-2, 3, D), X[0].numpy(), []

    def gradients(at: np.ndarray, **_: object) -> dict[str, np.ndarray]:
        seen.append(at[0] - x)
        return {INPUT_OUTPUT_GRADIENTS: np.broadcast_to(w, at.shape)}

    np.random.seed(0)  # noqa: NPY002 (what saliency reads)
    found = GradientSaliency().GetSmoothedMask(x, lambda at, **more: gradients(at), nsamples=2000)
    return {"σ ÷ (max x − min x)": float(np.std(seen) / np.ptp(x)), "answer − w²": float(np.abs(found - w**2).max())}


def logistic() -> dict[str, float]:
    """Weights by maximum likelihood (weighted rows of classes 1 and 0), by squared error, and what f itself is."""
    from sklearn.linear_model import LogisticRegression

    where = lx.Multiplicative(lx.AllCoalitions())

    def f(x: Tensor) -> Tensor:
        return (2 * network()(x)).sigmoid()

    def curve(x: Tensor) -> Tensor:
        return (x @ torch.arange(1.0, D + 1, dtype=torch.float64) / D).sigmoid()

    masks = where.draw(X[:1], 1, seeded()).xi.double()
    out = {}
    for name, model in (("f is no logistic function", f), ("f is one", curve)):
        e = lx.explain(model, X[:1], lx.Method("", where, lx.SquaredError(), lx.Logistic()), progress=False)
        y = model(X[0] * masks).flatten().numpy()
        rows, classes = np.r_[masks.numpy(), masks.numpy()], np.repeat([1, 0], len(masks))
        by_likelihood = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(rows, classes, np.r_[y, 1 - y])
        out[f"{name}: likelihood − stated loss"] = off(torch.from_numpy(by_likelihood.coef_), e.weights)
    return out


def lime_fit() -> dict[str, float]:
    """captum's Lime with its default regression, a Lasso, and with least squares, against ours on all masks."""
    where = lx.Multiplicative(lx.AllCoalitions(), kernel=lx.ExponentialKernel(2**0.5))
    exact = ours(lx.Method("", where, lx.SquaredError()), X[:1])
    kernel = get_exp_kernel_similarity_function("euclidean", 1.0)
    least = SkLearnLinearModel("linear_model.LinearRegression")
    found = {}
    for name, model in {"its Lasso": {}, "least squares": {"interpretable_model": least}}.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            lime = Lime(network(), similarity_func=kernel, **model)
            found[f"{name} − ours"] = off(lime.attribute(X[:1], n_samples=4000, perturbations_per_eval=4000), exact)
    return found


ROWS = (kernel, lime_fit, ends, sizes, nulls, occlusion, path, rule, smoothgrad, logistic)
