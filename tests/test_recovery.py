"""Experiment 2: the published medians from the stored explanations, and what theory says is recovered."""

import numpy as np
import pytest
import torch
from torch import nn

from experiments import networks, originals, recovery
from experiments.correspondence import engine, weights
from experiments.data import load
from experiments.originals import Problem

LOCAL = ("Vanilla Gradients", "SmoothGrad", "C-LIME")
# Medians over the authors' 100 points: L1 to w, cosine to w, L1 to w ⊙ x, cosine to w ⊙ x.
PUBLISHED = {
    "who_linear": {
        "captum_lime": (1.33576, 0.41260, 0.00000, 0.00000),
        "captum_vg": (0.00000, 0.00000, 1.33576, 0.41260),
        "meta_oc": (1.33575, 0.41260, 0.00002, 0.00000),
        "meta_sg_mse": (0.00001, 0.00000, 1.33577, 0.41260),
    },
    "heloc_logistic": {
        "captum_lime": (20.11331, 0.22994, 4.57003, 0.00106),
        "captum_ks": (20.15733, 0.23969, 4.60825, 0.00154),
        "captum_oc": (19.97394, 0.23328, 4.39836, 0.01071),
        "captum_ig": (20.12777, 0.23936, 4.58706, 0.00000),
        "captum_gxi": (19.98021, 0.23936, 4.35697, 0.00000),
        "captum_vg": (16.87249, 0.00000, 4.27152, 0.23936),
        "captum_sg": (16.98717, 0.00000, 4.22162, 0.23936),
        "meta_lime": (20.14463, 0.23722, 4.59694, 0.00115),
        "meta_ks": (20.15397, 0.24345, 4.60591, 0.00121),
        "meta_sg_mse": (16.99715, 0.00040, 4.21843, 0.23631),
        "meta_sg_mse_logistic": (0.00002, 0.00000, 15.60766, 0.23936),
        "meta_ig_logistic": (23.16817, 0.34404, 25.70868, 0.14130),
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_medians_follow_from_the_stored_explanations(authors, name):
    a = authors(name)
    p = Problem(a.model, a.x, None, torch.arange(a.x.shape[1]), 10, 0.1, 1.0)
    for key, expected in PUBLISHED[name].items():
        (frames,) = ([*recovery.recovery(p, {"existing": {key: a.stored[key].double()}})],)
        medians = {
            (f["compared_with"][0], metric): part["value"].median()
            for f in frames
            for metric, part in f.groupby("metric")
        }
        found = [medians[key] for key in (("w", "L1"), ("w", "cosine"), ("w*x", "L1"), ("w*x", "cosine"))]
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=key)


@pytest.fixture(scope="module")
def logistic():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 1), nn.Sigmoid()).double().eval()
        x = torch.rand(4, 5, dtype=torch.float64) + 0.2
    return Problem(net, x, None, torch.arange(5), 600, 0.2, 3.0)


def test_a_logistic_surrogate_recovers_the_logit_where_a_linear_one_cannot(logistic):
    found, left_out = recovery.logistic(logistic, 0)
    w = recovery.true_weights(logistic.model).expand(4, -1)
    assert set(left_out) == {"Gradient x Input"}  # at one point every line does
    assert "determine" in left_out["Gradient x Input"]
    for name, explained in found.items():
        truth = w if name in LOCAL else w * logistic.x
        np.testing.assert_allclose(explained, truth, atol=1e-5, err_msg=name)
        linear = weights(logistic, engine(logistic)[name])
        assert float((linear - truth).abs().sum(1).min()) > 0.3
        assert float(torch.cosine_similarity(linear, truth).min()) > 0.99


def test_the_run_compares_three_versions_on_several_networks(tmp_path):
    config = recovery.Config("breast_cancer", "logistic", points=3, n_samples=200, width=5.5, seeds=2)
    folder = recovery.main(config, tmp_path)
    import pandas as pd

    frame = pd.read_csv(folder / "recovery.csv")
    assert frame.groupby("version")["training_seed"].nunique().to_dict() == {
        "existing": 1,
        "framework": 2,
        "framework, logistic": 2,
    }
    cosine = frame[(frame["metric"] == "cosine") & (frame["version"] == "framework")]
    medians = cosine.groupby(["method", "compared_with"])["value"].median()
    assert medians["Vanilla Gradients", "w"] < 1e-6 < 0.05 < medians["Vanilla Gradients", "w*x"]
    assert medians["Gradient x Input", "w*x"] < 1e-6 < 0.05 < medians["Gradient x Input", "w"]
    with pytest.raises(ValueError, match="model must be linear or logistic"):
        recovery.main(recovery.Config("who", "ffnnA"), tmp_path)


def test_originals_are_computed_once_and_a_damaged_file_again(logistic, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(originals, "ORIGINALS", {"Vanilla Gradients": originals.ORIGINALS["Vanilla Gradients"]})
    first = originals.computed(logistic, 0, tmp_path)
    (file,) = tmp_path.glob("*.npz")

    def never(p, seed):
        raise AssertionError("computed again")

    monkeypatch.setattr(originals, "ORIGINALS", {"Vanilla Gradients": never})
    assert torch.equal(originals.computed(logistic, 0, tmp_path)["Vanilla Gradients"], first["Vanilla Gradients"])
    with pytest.raises(AssertionError, match="computed again"):
        originals.computed(logistic, 1, tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(AssertionError, match="computed again"):
        originals.computed(logistic, 0, tmp_path)
    assert "cannot be used" in capsys.readouterr().out


def test_sampled_originals_are_no_farther_than_fresh_runs_of_the_original(authors):
    """Mean L1 to the converged engine, on three points: stored, against the 95th percentile of fresh runs.

    Not so for LIME: on twelve points the stored one is at 0.0905, eight fresh runs between 0.073 and 0.084, as 770
    instead of 1,000 samples would give. Why is not known.
    """
    a = authors("heloc_ffnnA")
    x = a.x[:3]
    p = Problem(a.model, x, None, torch.arange(x.shape[1]), 1000, 0.1, 2**0.5)
    for name, key, runs_ in (
        ("SmoothGrad", "captum_sg", 20),
        ("LIME", "captum_lime", 12),
        ("KernelSHAP", "captum_ks", 12),
    ):
        converged = weights(p, engine(p)[name], n=50_000)
        fresh = [float((originals.ORIGINALS[name](p, seed) - converged).abs().sum(1).mean()) for seed in range(runs_)]
        stored = float((a.stored[key][:3].double() - converged).abs().sum(1).mean())
        allowed = 1.3 * np.mean(fresh) if name == "LIME" else np.quantile(fresh, 0.95)
        assert stored <= allowed, name


@pytest.mark.parametrize(("data", "model"), [("who", "ffnnB"), ("heloc", "ffnnA"), ("digits", "cnn")])
def test_networks_together_are_the_networks_apart(data, model):
    shape, classes = ((1, 8, 8), 10) if data == "digits" else ((7,), 2 if data == "heloc" else 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [networks.body_of(networks.network(data, model, shape, classes), classes) for _ in range(3)]
        x = torch.randn(3, 5, *shape)
    together = networks.Together(nets)
    assert together.apart == (model == "cnn")
    expected = torch.stack([net(rows) for net, rows in zip(nets, x, strict=True)])
    torch.testing.assert_close(together(x), expected, atol=1e-6, rtol=1e-5)
    for i, net in enumerate(nets):
        assert all(torch.equal(a, b) for a, b in zip(together.state(i), net.parameters(), strict=True))


def test_a_network_trained_with_others_is_the_one_of_a_plain_loop(tmp_path):
    table = load("diabetes")
    training = networks.Training("diabetes", "mlp", epochs=3, learning_rate=0.05, seed=2)
    (together,) = networks.several(table, training, 1, tmp_path)
    assert sorted(int(f.name.split("-")[2]) for f in tmp_path.glob("*.npz")) == [0, 1, 2, 3, 4]
    net, rng = networks._start(table, "mlp", 2), torch.Generator().manual_seed(2)
    rows = torch.randperm(len(table.x_train), generator=rng)
    cut = int(0.1 * len(rows))
    held, rows = rows[:cut], rows[cut:]
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200)
    best, kept = np.inf, None
    for _ in range(3):
        for i in rows[torch.randperm(len(rows), generator=rng)].split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(table.x_train[i])[:, 0], table.y_train[i]).backward()
            optimizer.step()
        scheduler.step()
        loss = float(nn.functional.mse_loss(net(table.x_train[held])[:, 0], table.y_train[held]).detach())
        if loss < best:
            best, kept = loss, net(table.x_test).detach()
    torch.testing.assert_close(together.network(table.x_test).detach(), kept, atol=1e-5, rtol=1e-4)
