"""The experiments: data as pinned, the paper's networks, originals against the engine, finished results."""

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
import torch
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import nn

from experiments import correspondence, data, files, networks, runs
from experiments.originals import ORIGINALS, SAMPLED, Problem

needs_data = pytest.mark.skipif(
    not (Path(os.environ.get("LOCAPPROX_DATA", "/nowhere")) / "who").is_dir(), reason="no $LOCAPPROX_DATA/who"
)
FILE = "who-clean-test20-normalized.csv"


@needs_data
@pytest.mark.parametrize(
    ("name", "rows"), [("who", (2350, 588, 19)), ("heloc", (7896, 1975, 23))], ids=["who", "heloc"]
)
def test_the_authors_tables_have_their_rows_and_explained_points(name, rows):
    table = data.load(name)
    train, test, d = rows
    assert table.x_train.shape == (train, d)
    assert table.x_test.shape == (test, d)
    assert len(table.features) == d
    assert table.x_train.aminmax() == (0, 1)
    simple = {"who": "linear", "heloc": "logistic"}[name]
    with np.load(Path(os.environ["LOCAPPROX_DATA"]) / "authors" / f"{name}_{simple}.npz") as stored:
        np.testing.assert_array_equal(table.x_explain.numpy(), stored["X"])


@needs_data
@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("who", "linear", {"mse": 0.0059, "r2": 0.8192}),
        ("who", "ffnnA", {"mse": 0.0050, "r2": 0.8463}),
        ("heloc", "logistic", {"accuracy": 0.7367, "bce": 0.5523}),
        ("heloc", "ffnnA", {"accuracy": 0.7524, "bce": 0.5233}),
    ],
)
def test_the_authors_checkpoints_have_their_test_metrics(name, model, expected):
    table = data.load(name)
    net = networks.network(name, model, tuple(table.x_train.shape[1:]), table.classes)
    with np.load(Path(os.environ["LOCAPPROX_DATA"]) / "authors" / f"{name}_{model}.npz") as stored:
        net.load_state_dict({k[6:]: torch.from_numpy(stored[k]) for k in stored.files if k.startswith("model/")})
    assert networks.metrics(net, table) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("model", "layers"), [("ffnnA", 3), ("ffnnB", 5), ("ffnnC", 8), ("linear", 1)])
def test_networks_have_the_papers_depth_and_width(model, layers):
    linear = [m for m in networks.network("who", model, (19,), 0).modules() if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [8] * (layers - 1) + [1]


def test_a_file_with_another_hash_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "who").mkdir()
    (tmp_path / "who" / FILE).write_text("1,2\n")
    monkeypatch.setenv("LOCAPPROX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"{FILE} is not the expected file"):
        data.fetch("who", FILE)


def test_without_data_and_network_both_ways_are_named(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise requests.ConnectionError("no network")

    monkeypatch.delenv("LOCAPPROX_DATA", raising=False)
    monkeypatch.setattr(data.pooch, "retrieve", offline)
    with pytest.raises(FileNotFoundError, match=r"connect to the internet .* set LOCAPPROX_DATA .*who/who-clean"):
        data.fetch("who", FILE)
    monkeypatch.setenv("LOCAPPROX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"LOCAPPROX_DATA has no .*{FILE}"):
        data.fetch("who", FILE)


@needs_data
def test_a_relative_data_folder_stays_where_it_was(tmp_path, monkeypatch):
    folder = Path(os.environ["LOCAPPROX_DATA"])
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("LOCAPPROX_DATA", folder.name)
    before = data.fetch("who", FILE)
    monkeypatch.chdir(tmp_path)
    assert data.fetch("who", FILE) == before == folder.resolve() / "who" / FILE


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer"])
def test_embedded_tables_are_standardised_on_the_training_part(name):
    table = data.load(name)
    torch.testing.assert_close(table.x_train.mean(0), torch.zeros(len(table.features)), atol=1e-5, rtol=0)
    torch.testing.assert_close(table.x_train.std(0, correction=0), torch.ones(len(table.features)))
    assert len(table.x_train) == (len(table.x_train) + len(table.x_test)) * 4 // 5
    if name == "diabetes":
        assert float(table.y_train.var(correction=0)) == pytest.approx(1, abs=1e-5)


def test_digits_are_images_between_0_and_1_in_ten_classes():
    table = data.load("digits")
    assert table.x_train.shape[1:] == (1, 8, 8)
    assert table.x_train.aminmax() == (0, 1)
    assert table.classes == 10
    assert correspondence.feature_groups(table.x_test).flatten().bincount().tolist() == [4] * 16


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="data must be one of"):
        data.load("iris")
    with pytest.raises(ValueError, match="model must be one of"):
        networks.network("who", "ffnnD", (19,), 0)


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory):
    table = data.load("diabetes")
    training = networks.recipe("diabetes", "linear")
    return table, networks.trained(table, training, tmp_path_factory.mktemp("networks")).network


def test_a_trained_linear_model_is_near_least_squares(diabetes):
    table, net = diabetes
    ones = torch.ones(len(table.x_train), 1)
    best = torch.linalg.lstsq(torch.cat([table.x_train, ones], 1), table.y_train[:, None]).solution[:-1, 0]
    predicted, optimal = (table.x_test @ w for w in (net.linear.weight[0].detach(), best))
    assert float((predicted - optimal).std() / optimal.std()) < 0.15


def test_validation_never_sees_the_test_set_and_the_cache_gives_the_same_bits(tmp_path):
    table, training = data.load("diabetes"), replace(networks.recipe("diabetes", "mlp"), epochs=5)
    other = replace(table, y_test=-table.y_test, x_test=-table.x_test)
    first = networks.trained(table, training, tmp_path / "a").network.state_dict()
    unseen = networks.trained(other, training, tmp_path / "b").network.state_dict()
    again = networks.trained(table, training, tmp_path / "a").network.state_dict()
    for name, value in first.items():
        assert torch.equal(value, unseen[name])
        assert torch.equal(value, again[name])
    file = next((tmp_path / "a").glob("diabetes-mlp-0-*.npz"))
    assert len(list((tmp_path / "a").glob("*.npz"))) == networks.TOGETHER
    with np.load(file, allow_pickle=False) as stored:
        assert set(stored.files) == {*first, files.CHECKSUM}


def test_a_network_that_learned_nothing_gives_way_to_the_next_seed(tmp_path, monkeypatch):
    table, training = data.load("diabetes"), replace(networks.recipe("diabetes", "mlp"), epochs=1)
    monkeypatch.setattr(networks, "LEARNED", 0.0)
    with pytest.raises(RuntimeError, match="none of 10 seeds beats a constant"):
        networks.trained(table, training, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 10


@pytest.fixture(scope="module")
def linear_distances(diabetes):
    table, net = diabetes
    config = correspondence.Config("diabetes", "linear", points=3, n_samples=200, width=3.0)
    p = correspondence.problem(config, table, net)
    theirs = {name: original(p, 0) for name, original in ORIGINALS.items()}
    return net, table.x_explain[:3].double(), correspondence.distances(p, theirs, 0)


def test_on_a_linear_model_distances_are_those_between_w_and_w_times_x(linear_distances):
    net, x, frame = linear_distances
    w = net.linear.weight[0].detach().double()
    apart = (w - w * x).abs().sum(1)
    local = {"Vanilla Gradients", "SmoothGrad", "C-LIME"}
    l1 = frame[frame["metric"] == "L1"]
    assert len(l1) == 8 * 8 * 3
    for (existing, engine), pair in l1.groupby(["existing", "engine"]):
        expected = 0 if (existing in local) == (engine in local) else apart.numpy()
        np.testing.assert_allclose(pair.sort_values("instance")["value"], expected, atol=2e-5, err_msg=existing)


def test_both_limes_have_the_same_kernel():
    x, masked = torch.tensor([[0.3, 0.8, 0.1]]), torch.tensor([[0.3, 0.0, 0.0]])
    kernel = get_exp_kernel_similarity_function("euclidean", 0.7 / math.sqrt(2))
    assert kernel(x, masked, None) == pytest.approx(math.exp(-(0.8**2 + 0.1**2) / 0.7**2), rel=1e-6)


def test_patches_of_an_image_weigh_the_same_in_captum_and_the_engine():
    torch.manual_seed(0)
    net, x = networks.network("digits", "cnn", (1, 8, 8), 10).eval(), data.load("digits").x_explain[:3]
    p = Problem(net, x, networks.explained_class(net, x), correspondence.feature_groups(x), 64, sigma=0.1, width=8.0)
    methods = correspondence.engine(p)
    for name in ("Integrated Gradients", "Gradient x Input", "Vanilla Gradients", "Occlusion"):
        ours = correspondence.weights(p, methods[name])
        assert ours.shape == (3, 16)
        torch.testing.assert_close(ours, ORIGINALS[name](p, 0), atol=2e-6, rtol=0, msg=name)


def test_sampled_originals_follow_their_seed_and_leave_the_global_state_alone(diabetes):
    table, net = diabetes
    x = table.x_explain[:2]
    curved = nn.Sequential(net, nn.Tanh()).eval()
    p = Problem(curved, x, None, correspondence.feature_groups(x), 100, sigma=0.3, width=3.0)
    state = torch.random.get_rng_state()
    for name in ORIGINALS:
        runs_ = [ORIGINALS[name](p, seed) for seed in (1, 1, 2)]
        assert torch.equal(runs_[0], runs_[1])
        assert torch.equal(runs_[0], runs_[2]) == (name not in SAMPLED)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_cosine_distance_knows_its_values():
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1.0, 1.0]])
    b = torch.tensor([[0.0, 2.0], [-5.0, 0.0], [0.3, 0.4], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(
        correspondence.cosine(a, b), torch.tensor([1.0, 2, 0, 0, 0.5]).double(), atol=1e-7, rtol=0
    )


class Cubes(nn.Module):
    def forward(self, x):
        return x.pow(3).sum(1, keepdim=True)


def test_integrated_gradients_of_cubes():
    """f = Σ x³ gives x³; four Gauss–Legendre nodes are exact, m midpoints are off by x³/(4m²)."""
    x = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    p = Problem(Cubes().eval(), x, None, torch.arange(3), 10, sigma=0.1, width=1.0)
    torch.testing.assert_close(correspondence.midpoint(p, 100), x**3 * (1 - 1 / (4 * 100**2)))
    method = correspondence.engine(p)["Integrated Gradients"]
    torch.testing.assert_close(correspondence.weights(p, method, n=4), x**3)


def test_limits_end_exactly_and_repeats_cover_the_sampled_methods(diabetes, tmp_path):
    table, net = diabetes
    curved = nn.Sequential(net, nn.Tanh()).eval()
    x = table.x_explain[:2]
    p = Problem(curved, x, None, correspondence.feature_groups(x), 50, sigma=0.1, width=3.0)
    frame = correspondence.limits(
        p, {name: ORIGINALS[name](p, 0) for name in ("Vanilla Gradients", "Gradient x Input")}, 0
    )
    means = frame[frame["metric"] == "L1"].groupby(["limit", "parameter"])["value"].mean()
    assert means["SmoothGrad", 0.0] < 1e-6 < means["SmoothGrad", 0.01] < means["SmoothGrad", 0.3]
    assert means["Gradient x Input", 1.0] < 1e-6 < means["Gradient x Input", 0.95] < means["Gradient x Input", 0.0]
    repeats = correspondence.repeats(p, 0, tmp_path)
    assert set(repeats["method"]) == set(SAMPLED)
    assert (repeats["value"] > 0).all()


@dataclass(frozen=True)
class Settings:
    n: int = 1


def test_finished_results_are_kept_until_config_or_data_change(tmp_path, capsys):
    calls = []

    def compute():
        calls.append(1)
        return {"table": pd.DataFrame({"a": [len(calls)]})}, {"metrics": {"mse": 0.5}}

    def run(config, hashes, force=False):
        runs.run(tmp_path, config, hashes, compute, "python -m it", force)
        return int(pd.read_csv(tmp_path / "table.csv")["a"][0])

    assert run(Settings(), {"f": "0"}) == 1
    assert run(Settings(), {"f": "0"}) == 1
    assert "already there" in capsys.readouterr().out
    assert run(Settings(2), {"f": "0"}) == 2
    assert run(Settings(2), {"f": "1"}) == 3
    assert run(Settings(2), {"f": "1"}, force=True) == 4
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["config"] == {"n": 2}
    assert manifest["metrics"] == {"mse": 0.5}
    assert manifest["packages"]["captum"]
    assert {p.name for p in tmp_path.iterdir()} == {"table.csv", "manifest.json", files.LOCK}


def test_an_interrupted_write_leaves_no_file_and_finished_results(tmp_path):
    def half(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "table.csv", half)
    assert list(tmp_path.iterdir()) == []

    def interrupted():
        raise KeyboardInterrupt

    runs.run(tmp_path, Settings(), {}, lambda: ({}, {}), "it")
    manifest = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        runs.run(tmp_path, Settings(), {}, interrupted, "it", force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", files.LOCK}
    assert (tmp_path / "manifest.json").read_bytes() == manifest


def test_a_config_prints_the_command_that_repeats_it():
    config = correspondence.Config("heloc", "ffnnB", n_samples=50)
    assert config.command(Path("here")) == (
        "python -m experiments.correspondence --data heloc --model ffnnB --n-samples 50 --out here"
    )
