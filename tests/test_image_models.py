"""Experiment 4 on the digits: its tables against the library, loops and identities."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import locapprox as lx
from experiments import image_models
from experiments.image_models import Config, Problem
from paper_figures import image_models as figures
from paper_figures.__main__ import main as draw
from paper_figures.results import read

CONFIG = Config(
    "digits", "cnn", 2, points=6, n_samples=300, nodes=20, replicates=2, patches=(4,), points_studied=3, shown=2
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("images")
    folder = image_models.main(CONFIG, out)
    return out, {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}


@pytest.fixture(scope="module")
def p(results):
    table = image_models.images("digits")
    net = image_models.trained(CONFIG, results[0] / "networks", table).network
    x = table.x_explain[:6]
    return Problem(net, x, net(x).argmax(1), CONFIG)


def test_curves_begin_and_end_where_they_must(results, p):
    """Deletion goes from the prediction to that of the baseline, insertion the other way; bottom and top end alike."""
    curves = results[1]["curves"]
    with torch.no_grad():
        full, empty = (float(p.model(v).gather(1, p.target[:, None]).mean()) for v in (p.x, torch.zeros_like(p.x)))
    for kind, (start, end) in {"deletion": (full, empty), "insertion": (empty, full)}.items():
        part = curves[curves["kind"] == kind].set_index("k")["mean"]
        np.testing.assert_allclose(part.loc[0], start, atol=1e-6)
        np.testing.assert_allclose(part.loc[16], end, atol=1e-6)
    ends = curves[curves["kind"].isin(["bottom", "top"]) & (curves["k"] == 16)]["mean"]
    np.testing.assert_allclose(ends, ends.iloc[0], rtol=1e-6)


def test_areas_are_those_of_the_curves(results):
    tables = results[1]
    keys = ["kind", "method", "ranked_by"]
    for key, part in tables["curves"].groupby(keys):
        mean = part.sort_values("k")["mean"].to_numpy()
        area = np.trapezoid(mean) / (len(mean) - 1) if key[0] in ("deletion", "insertion") else mean.mean()
        assert tables["areas"].set_index(keys).loc[key, "mean"] == pytest.approx(area, rel=1e-9)


def test_vanilla_gradients_times_the_input_are_gradient_x_input(results):
    areas = results[1]["areas"].set_index(["method", "ranked_by", "kind"])["mean"]
    for kind in ("bottom", "top", "deletion", "insertion"):
        ours = areas["Vanilla Gradients", "w*x", kind]
        assert ours == pytest.approx(areas["Gradient x Input", "native", kind], abs=1e-5)
    assert areas["Vanilla Gradients", "native", "top"] != areas["Vanilla Gradients", "w*x", "top"]


def test_the_maps_are_the_explanations(results, p):
    """Pixel by pixel; Occlusion's by a loop."""
    maps = results[1]["maps"]
    shape = (2, 1, 8, 8)
    layer = {name: part["value"].to_numpy().reshape(shape) for name, part in maps.groupby("map", sort=False)}
    np.testing.assert_allclose(layer["image"], p.x[:2].numpy(), atol=1e-4)
    with torch.no_grad():
        before = p.model(p.x[:2]).gather(1, p.target[:2, None])[:, 0]
        for row in range(0, 8, 2):
            for column in range(0, 8, 2):
                without = p.x[:2].clone()
                without[..., row : row + 2, column : column + 2] = 0
                drop = before - p.model(without).gather(1, p.target[:2, None])[:, 0]
                for pixel in ((row, column), (row + 1, column + 1)):
                    got = layer["Occlusion"][:, 0, pixel[0], pixel[1]]
                    np.testing.assert_allclose(got, drop.numpy(), rtol=1e-3, atol=1e-6)
    gradient = lx.explain(p.model, p.x[:2], lx.vanilla_gradients(), target=p.target[:2]).weights
    np.testing.assert_allclose(layer["Vanilla Gradients"], gradient.numpy(), rtol=1e-3, atol=1e-9)
    assert maps["predicted"].astype(str).unique().tolist() == list(dict.fromkeys(str(int(t)) for t in p.target[:2]))


def test_methods_are_at_the_optimum_at_home(results):
    matrix = results[1]["matrix"]
    home = matrix[matrix["method"] == matrix["neighbourhood"]].set_index("method")
    for exact in ("Occlusion", "Vanilla Gradients", "Gradient x Input", "Integrated Gradients"):
        assert abs(home.loc[exact, "lost"]) < 1e-6, exact
    assert (results[1]["verdict"]["equivalent"] < 8).all(), "some method is best everywhere"


def test_the_study_has_every_setting(results):
    study = results[1]["study"]
    settings = set(study[["patch", "baseline"]].itertuples(index=False, name=None))
    assert settings == {(2, "zero"), (4, "zero"), (2, "mean"), (2, "blurred")}
    main = study[(study["patch"] == 2) & (study["baseline"] == "zero")].set_index("method")
    matrix = results[1]["matrix"].set_index(["method", "neighbourhood"])["lost"]
    for method, row in main.iterrows():
        assert row["worst_lost"] == pytest.approx(matrix[method].max())
    assert "C-LIME" not in study[study["patch"] == 4]["method"].tolist()


def test_the_kernel_is_as_wide_as_the_images_are_far_from_their_baselines(p):
    kernel = p.methods(2, "zero")["LIME"].neighbourhood.kernel
    assert kernel.width == pytest.approx(float(p.x.double().square().flatten(1).sum(1).mean()) ** 0.5)
    mean = p.methods(2, "mean")["LIME"].neighbourhood.kernel
    centred = p.x - p.x.mean((-2, -1), keepdim=True)
    assert mean.width == pytest.approx(float(centred.double().square().flatten(1).sum(1).mean()) ** 0.5)


def test_unknown_images_and_baselines_are_named(tmp_path):
    with pytest.raises(ValueError, match="data must be digits, mnist or cifar10; got 'cats'"):
        image_models.main(Config("cats"), tmp_path)
    with pytest.raises(ValueError, match="baseline must be one of zero, mean, blurred; got 'black'"):
        image_models.main(Config("digits", "cnn", baseline="black"), tmp_path)


def test_the_figures_and_the_page(results):
    out = results[0]
    page = draw(results=out).read_text(encoding="utf-8")
    for name in ("digits-cnn-pictures", "digits-cnn-curves", "digits-cnn-study", "no-free-lunch"):
        assert f'id="image-models-{name}"' in page
        assert (out / "figures" / f"image-models-{name}.pdf").is_file()
    recommended = json.loads((out / "image_models" / "digits-cnn" / "manifest.json").read_text())["recommend"]
    assert "existing methods" in recommended or "No winner" in recommended
    assert recommended.split(":")[0] in page
    best = figures.summary(read(out, "image_models")).set_index("neighbourhood")
    assert best.loc["Vanilla Gradients", "best other method"] == "Gradient x Input"
