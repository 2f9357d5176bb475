"""paper_figures/published.csv, every cell of it, from the authors' checkpoints and stored explanations."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import networks
from experiments.authors import CODES, FRAMEWORK, MODELS, SIGMAS, STARTS, network, points, stored
from experiments.data import load

PAGE = Path(__file__).parents[1] / "paper_figures" / "published.csv"
KEYS = ["experiment", "quantity", "method", "other"]
DRAWS, MOST = 100, 11  # of noise, and features, in their perturbation tests
FOUND = pd.read_csv(PAGE, keep_default_na=False)


def cosine(a, b):
    return 1 - torch.cosine_similarity(a, b, dim=1)


DISTANCES = {"L1": lambda a, b: (a - b).abs().sum(1), "cosine": cosine}


def correspondence(data, model):
    for method, of_captum in CODES.items():
        for other, of_framework in FRAMEWORK.items():
            pair = stored(data, model, f"captum_{of_captum}"), stored(data, model, f"meta_{of_framework}")
            for name, distance in DISTANCES.items():
                yield "correspondence", name, method, other, distance(*pair).mean()


def limits(data, model):
    for method, of, limit in (("SmoothGrad", SIGMAS, "captum_vg"), ("Gradient x Input", STARTS, "captum_gxi")):
        for parameter, name in of.items():
            for metric, distance in DISTANCES.items():
                away = distance(stored(data, model, f"meta_{name}"), stored(data, model, limit)).mean()
                yield "limits", metric, method, f"{parameter:g}", away


def recovery(data, model):
    if model not in ("linear", "logistic"):
        return
    w = next(iter(network(data, model).parameters())).double()
    versions = {"existing": ("captum", CODES, ""), "framework": ("meta", FRAMEWORK | {"C-LIME": "sg_mse"}, "")}
    if model == "logistic":
        gradients = [name for name in versions["framework"][1] if name not in ("LIME", "KernelSHAP", "Occlusion")]
        names = {name: versions["framework"][1][name] for name in gradients}
        versions["framework, logistic"] = ("meta", names, "_logistic")
    for version, (kind, names, suffix) in versions.items():
        for method, name in names.items():
            explained = stored(data, model, f"{kind}_{name}{suffix}")
            for truth, of in (("w", w.expand_as(explained)), ("w*x", w * points(data))):
                for metric, distance in DISTANCES.items():
                    yield "recovery", f"{metric} to {truth}", method, version, distance(explained, of).quantile(0.5)


def perturbations(data, model):
    """Their means over k and 100 points: by zeros, and by noise that torch drew unseeded."""
    net, x = network(data, model), points(data)
    rng = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(DRAWS, *x.shape, generator=rng)
    for method, name in CODES.items():
        rank = stored(data, model, f"captum_{name}").abs().argsort(1).argsort(1)
        for kind, place in (("bottom", rank), ("top", x.shape[1] - 1 - rank)):
            for replace, elsewhere in (("baseline", torch.zeros(1, *x.shape)), ("noise", x + noise)):
                at = torch.stack([torch.where(place < k, elsewhere, x) for k in range(1, MOST + 1)])
                moved = (net(at.flatten(0, -2)).reshape(at.shape[:-1]) - net(x)[:, 0]).abs()
                yield "perturbations", f"{kind} {replace}", method, "", moved.mean()


def metrics(data, model):
    for name, value in networks.metrics(network(data, model), load(data)).items():
        yield "models", name, "", "", value


def tolerance(frame):
    """Of the last digit that is written; of features of one weight, in whatever order argsort left them; of noise."""
    tied, drawn = frame["experiment"] == "perturbations", frame["quantity"].str.contains("noise")
    share = np.select([drawn, tied], [0.03, 2e-4], 2e-5)
    return np.maximum(share * frame["value"].abs(), np.where(drawn, 2e-4, 2e-6))


@pytest.mark.parametrize(("data", "model"), sorted(set(zip(FOUND["data"], FOUND["model"], strict=True))))
def test_every_cell_follows_from_their_files(data, model):
    assert (data, model) in MODELS
    try:
        parts = [*correspondence(data, model), *limits(data, model), *recovery(data, model)]
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
    rows = [(*row[:4], float(row[4])) for row in (*parts, *perturbations(data, model), *metrics(data, model))]
    ours = pd.DataFrame(rows, columns=[*KEYS, "computed"])
    theirs = FOUND[(FOUND["data"] == data) & (FOUND["model"] == model)]
    both = theirs.merge(ours, on=KEYS, how="left")
    wrong = both[~((both["value"] - both["computed"]).abs() <= tolerance(both))]
    assert wrong.empty, wrong.to_string()
