"""captum, shap and lime at their best: in the calls that are fastest here, without what only their defaults cost.

captum's Integrated Gradients takes its trapezoid rule, since its Gauss–Legendre nodes come from numpy's leggauss, which
takes longer than the gradients.
"""

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.bench.cases import SIGMA, Case

FEW = 5  # instances, of peers that loop over them
Peer = tuple[tuple[int, ...], int, Callable[[int], Any]]  # sizes of calls to choose from, instances, the work


def peers(case: Case) -> dict[tuple[str, str], Peer]:
    """(library, method) -> what it takes to compute that method's weights."""
    found = _captum(case) if isinstance(case.model, nn.Module) else {}
    found |= _shap(case)
    if case.train is not None and "lime tabular" in case.methods:
        found["lime", "lime tabular"] = _lime_tabular(case)
    elif case.train is not None and "LIME" in case.methods:
        found["lime", "LIME"] = _lime_tabular(case)
    elif case.labels is not None and case.x.shape[1] == 1:
        found["lime", "LIME"] = _lime_image(case)
    return found


def _captum(case: Case) -> dict[tuple[str, str], Peer]:
    from captum.attr import (
        FeatureAblation,
        InputXGradient,
        IntegratedGradients,
        KernelShap,
        Lime,
        NoiseTunnel,
        Saliency,
    )

    net: nn.Module = case.model
    x, target = torch.as_tensor(case.x), case.target
    few = min(FEW, len(x))
    features = x[0].numel() if case.labels is None else int(case.labels.max()) + 1
    mask = {} if case.labels is None else {"feature_mask": case.labels.expand(x[:1].shape)}
    leaf = x.detach().clone().requires_grad_()
    if case.background is not None:
        return {}

    def one_by_one(method: Any, name: str, size: int) -> None:
        for i in range(few):
            one = {"target": None if target is None else int(target[i]), "n_samples": case.n(name), **mask}
            method.attribute(x[i : i + 1], perturbations_per_eval=size, **one)

    def tunnel(size: int) -> None:
        n = case.n("SmoothGrad")
        NoiseTunnel(Saliency(net)).attribute(
            leaf, nt_samples=n, nt_samples_batch_size=min(size, n), stdevs=SIGMA, target=target, abs=False
        )

    def path(size: int) -> None:
        IntegratedGradients(net).attribute(
            x, target=target, n_steps=case.n("Integrated Gradients"), method="riemann_trapezoid",
            internal_batch_size=max(size, len(x)),
        )  # fmt: skip

    def ablation(size: int) -> None:
        FeatureAblation(net).attribute(x, target=target, perturbations_per_eval=size, **mask)

    per_call = (8, 60) if x[0].numel() > 10_000 else (50, 250, 1000)
    rows = (2, 8, 16) if x[0].numel() > 10_000 else (500, 4000, 16_000)
    many = tuple(max(1, size // len(x)) for size in rows)
    one = (1,)
    return {
        ("captum", "KernelSHAP"): (per_call, few, partial(one_by_one, KernelShap(net), "KernelSHAP")),
        ("captum", "LIME"): (per_call, few, partial(one_by_one, Lime(net), "LIME")),
        ("captum", "SmoothGrad"): (many, len(x), tunnel),
        ("captum", "Integrated Gradients"): (rows, len(x), path),
        ("captum", "Occlusion"): ((1, 4, features), len(x), ablation),
        ("captum", "Vanilla Gradients"): (
            one,
            len(x),
            lambda size: Saliency(net).attribute(leaf, target=target, abs=False),
        ),
        ("captum", "Gradient x Input"): (one, len(x), lambda size: InputXGradient(net).attribute(leaf, target=target)),
    }


def _predict(case: Case, size: int = 32_000) -> Callable[[np.ndarray], np.ndarray]:
    """The model on arrays."""
    if not isinstance(case.model, nn.Module):
        return case.model.predict

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = torch.from_numpy(rows).to(torch.as_tensor(case.x).dtype).split(size)
            return torch.cat([case.model(part) for part in parts])[:, 0].numpy()

    return predict


def _shap(case: Case) -> dict[tuple[str, str], Peer]:
    import shap

    if "KernelSHAP" not in case.methods:
        return {}
    x, n = torch.as_tensor(case.x), case.n("KernelSHAP")
    few = min(FEW, len(x))
    if case.labels is not None:
        return {("shap", "KernelSHAP"): ((8,) if x[0].numel() > 10_000 else (128, 512), few, _shap_masks(case, few))}
    kept = case.methods["KernelSHAP"].neighbourhood.baseline  # type: ignore[attr-defined]
    base = np.zeros((1, x.shape[1]))
    if case.background is not None:
        base = case.background.numpy()
    elif isinstance(kept, Tensor):
        base = kept.numpy()[None]
    predict, some = _predict(case), x[:few].numpy()

    def kernel(size: int) -> None:
        shap.KernelExplainer(predict, base).shap_values(some, nsamples=n, l1_reg=False, silent=True)

    def permutation(size: int) -> None:
        explainer = shap.PermutationExplainer(predict, shap.maskers.Independent(base, max_samples=len(base)), seed=0)
        explainer(some, max_evals=max(n, 2 * x.shape[1] + 1), silent=True)

    return {
        ("shap", "KernelSHAP"): ((1,), few, kernel),
        ("shap permutation", "KernelSHAP"): ((1,), few, permutation),
    }


def _shap_masks(case: Case, few: int) -> Callable[[int], None]:
    """Of images, shap sees masks of patches."""
    import shap

    x, labels, target = torch.as_tensor(case.x), case.labels, case.target
    assert labels is not None
    assert target is not None
    count = int(labels.max()) + 1

    def run(size: int) -> None:
        for i in range(few):

            def masked(masks: np.ndarray, i: int = i) -> np.ndarray:
                keep = torch.from_numpy(masks).float()[:, labels].reshape(-1, 1, *x.shape[2:])
                with torch.no_grad():
                    return torch.cat([case.model(k * x[i])[:, target[i]] for k in keep.split(size)]).numpy()

            explainer = shap.KernelExplainer(masked, np.zeros((1, count)))
            explainer.shap_values(np.ones((1, count)), nsamples=case.n("KernelSHAP"), l1_reg=False, silent=True)

    return run


def _lime_tabular(case: Case) -> Peer:
    from lime.lime_tabular import LimeTabularExplainer

    x, predict = torch.as_tensor(case.x).numpy(), _predict(case)
    few, name = min(FEW, len(x)), "lime tabular" if "lime tabular" in case.methods else "LIME"

    def run(size: int) -> None:
        explainer = LimeTabularExplainer(case.train, mode="regression", discretize_continuous=False, random_state=0)
        for one in x[:few]:
            explainer.explain_instance(one, predict, num_features=x.shape[1], num_samples=case.n(name))

    return (1,), few, run


def _lime_image(case: Case) -> Peer:
    from lime.lime_image import LimeImageExplainer

    x, labels = torch.as_tensor(case.x), case.labels
    assert labels is not None
    few, segments = min(FEW, len(x)), labels.reshape(x.shape[2:]).numpy()

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return case.model(torch.from_numpy(rows).float().mean(-1)[:, None]).numpy()

    def run(size: int) -> None:
        for image in x[:few]:
            rgb = image[0].double().numpy()[..., None].repeat(3, -1)
            settings = {"hide_color": 0, "num_samples": case.n("LIME"), "batch_size": size}
            with redirect_stderr(io.StringIO()):  # its progress bar
                LimeImageExplainer(random_state=0).explain_instance(
                    rgb, predict, segmentation_fn=lambda _: segments, **settings
                )

    return (32, 128, 512), few, run
