"""Rows about the authors' code, by what it left: eight checkpoints and the explanations of 100 points of each."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

import locapprox as lx
from experiments.authors import CODES, MODELS, network, points, stored
from experiments.differences.libraries import off

FEW, MANY = 10, 8_000  # points, and masks or draws of a fit that stands for the converged one
CURVED = [model for model in MODELS if model[1] != "linear"]


def explained(data: str, model: str, method: lx.Method, n: int = MANY, few: int = FEW) -> Tensor:
    return lx.explain(network(data, model), points(data)[:few], method, n_samples=n, progress=False).weights


@cache
def fits(data: str, model: str) -> dict[str, Tensor]:
    """On many masks: least squares without weights, and with those of LIME and KernelSHAP."""
    plain = lx.Method("", lx.Multiplicative(lx.FairMasks()), lx.SquaredError())
    methods = {"unweighted": plain, "lime": lx.lime(width=1.0), "ks": lx.kernel_shap()}
    return {name: explained(data, model, method) for name, method in methods.items()}


def unweighted() -> dict[str, float]:
    """The share of points whose stored framework explanation is nearer to the fit without weights (7 models)."""
    out = {}
    for code, name in (("lime", "LIME"), ("ks", "KernelSHAP")):
        nearer = []
        for data, model in CURVED:
            theirs, found = stored(data, model, f"meta_{code}")[:FEW], fits(data, model)
            distance = [(theirs - found[kind]).abs().sum(1) for kind in ("unweighted", code)]
            nearer.append((distance[0] < distance[1]).double().mean())
        out[name] = float(torch.stack(nearer).mean())
    return out


def public() -> dict[str, float]:
    """Models whose checkpoint gives the gradients that are stored of all 100 points, and the largest difference."""
    gaps = []
    for data, model in MODELS:
        theirs = stored(data, model, f"captum_{CODES['Vanilla Gradients']}")
        gaps.append(off(explained(data, model, lx.vanilla_gradients(), few=100), theirs))
    return {"models": float(sum(gap < 1e-5 for gap in gaps)), "relative difference": max(gaps)}


def limits() -> dict[str, float]:
    """Their smallest σ and largest a against the gradient and gradient × input: the worst of eight."""
    out = {}
    for name, near, limit in (("σ = .01", "meta_sg_gm3", "captum_vg"), ("a = .95", "meta_ig5", "captum_gxi")):
        pairs = [(stored(*m, near), stored(*m, limit)) for m in MODELS]
        out[name] = max(off(a, b) for a, b in pairs)
    return out


def intercept() -> dict[str, float]:
    """The largest stored intercept of fits by gradient matching in noise, of all models and σ."""
    names = ("sg_gm", "sg_gm2", "sg_gm3", "sg_gm4", "sg_gm5")
    theirs = [stored(*m, f"meta_{name}", "bias").abs().max() for m in MODELS for name in names]
    return {"largest stored intercept": float(max(theirs))}


def probability() -> dict[str, float]:
    """Stored gradients of the four HELOC models against those of the probability, and of its logit."""
    out = {"probability": 0.0, "logit": torch.inf}
    for data, model in MODELS[4:]:
        net, x, theirs = network(data, model), points(data), stored(data, model, "captum_vg")
        for name, f in (("probability", net), ("logit", net[:-1])):
            gap = off(lx.explain(f, x, lx.vanilla_gradients(), progress=False).weights, theirs)
            out[name] = max(out[name], gap) if name == "probability" else min(out[name], gap)
    return out


def c_lime() -> dict[str, float]:
    """Their `meta_sg_mse` against ours, as a share of the norm: the median of eight models; and against LIME."""
    noise, masks = [], []
    for data, model in MODELS:
        theirs = stored(data, model, "meta_sg_mse")[:FEW]
        noise.append(off(theirs, explained(data, model, lx.c_lime(0.1))))
        masks.append(off(theirs, fits(data, model)["lime"]))
    return {"C-LIME": float(torch.tensor(noise).median()), "LIME": float(torch.tensor(masks).median())}


def vectors() -> dict[str, float]:
    """Their Occlusion and Integrated Gradients (ξ a vector of equal numbers) against ours: the worst of eight."""
    pairs: dict[str, Iterator[float]] = {
        "Occlusion": (off(stored(*m, "meta_oc"), explained(*m, lx.occlusion(), few=100)) for m in MODELS),
        "Integrated Gradients": (
            off(stored(*m, "meta_ig"), explained(*m, lx.integrated_gradients(), 1000, 100)) for m in MODELS
        ),
    }
    return {name: max(gaps) for name, gaps in pairs.items()}


ROWS = (unweighted, public, limits, intercept, probability, c_lime, vectors)
