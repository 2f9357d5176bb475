"""The authors' checkpoints and stored explanations against the engine: two small models, and the pieces."""

import pytest
import torch

import locapprox as lx
from experiments import authors
from experiments.authors_models import CaptumMasks, Config, captum_kernel_shap, compute, relative
from experiments.data import load

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # too few draws met a kink for an error


@pytest.fixture(scope="module", params=[("who", "ffnnA"), ("heloc", "logistic")])
def tables(request):
    try:
        return compute(Config(*request.param, points=40, converged=4000), load(request.param[0]))[0]
    except FileNotFoundError as absent:
        pytest.skip(str(absent))


def values(tables, version, quantity):
    frame = tables["explanations"].query("version == @version and quantity == @quantity")
    return frame.set_index("method")["value"]


def test_what_captum_does_not_sample_is_ours_to_rounding(tables):
    exact = values(tables, "existing", "relative difference").drop(["LIME", "KernelSHAP", "SmoothGrad"])
    assert len(exact) == 4
    assert (exact <= 3e-6).all()


def test_what_captum_samples_lies_within_our_errors(tables):
    assert values(tables, "existing", "rms z").between(0.9, 1.1).all()
    assert values(tables, "existing", "within 1.96").between(0.92, 0.98).all()
    assert (values(tables, "existing", "judged") == 1).all()


def test_another_kernel_is_told_apart(tables):
    """Of width 1 instead of √2, LIME's z are larger: the test has power."""
    data, model = tables["explanations"].loc[0, ["data", "model"]]
    net, x, theirs = authors.network(data, model), authors.points(data), authors.stored(data, model, "captum_lime")
    fits = [lx.explain(net, x, lx.lime(1.0), n_samples=n, progress=False) for n in (1000, 4000)]
    error = fits[0].standard_error.hypot(fits[1].standard_error)
    z = ((theirs - fits[1].weights) / error)[error > 0]
    assert float(z.square().mean().sqrt()) > 1.2


def test_their_framework_never_used_the_kernels(tables):
    assert values(tables, "framework", "nearer to the unweighted fit")["LIME"] >= 0.9
    assert values(tables, "framework", "share of the norm")["Occlusion"] <= 1e-4


def test_perturbation_curves_are_theirs(tables):
    curves = tables["curves"]
    gap = (curves["tested"] - curves["theirs"]).abs()
    assert (gap[curves["replace"] == "baseline"] <= 5e-7).all()
    assert (gap <= 3 * curves["sem"] + 5e-7).all()
    exact = curves["method"].isin(["Vanilla Gradients", "Gradient x Input"])
    assert ((curves["ours"] - curves["tested"]).abs()[exact] <= 1e-6).all()


def test_their_logistic_model_recovers_the_direction_of_w(tables):
    if tables["explanations"]["model"][0] == "logistic":
        assert values(tables, "existing", "cosine to w")["Vanilla Gradients"] <= 1e-12
        assert values(tables, "existing", "cosine to w*x")["Gradient x Input"] <= 1e-12


def test_captums_masks_give_shapley_values():
    """Of f = x₀x₁ + 3x₂ at ones: ½, ½, 3, and 0 for a feature at the baseline."""
    x = torch.tensor([[1.0, 1, 1, 0]], dtype=torch.float64)
    e = lx.explain(lambda x: x[:, 0] * x[:, 1] + 3 * x[:, 2], x, captum_kernel_shap(), n_samples=4000)
    z = (e.weights[0] - torch.tensor([0.5, 0.5, 3, 0])) / e.standard_error[0]
    assert (z.abs() < 3).all()
    assert e.weights.sum() == pytest.approx(4, abs=1e-9)
    draw = CaptumMasks().draw(x, 4002, torch.Generator().manual_seed(0))
    share = torch.bincount(draw.xi[2:].sum(1).long(), minlength=5)[1:4] / 4000
    torch.testing.assert_close(share, torch.tensor([4.0, 3, 4]) / 11, rtol=0, atol=0.03)


def test_a_difference_is_relative_to_the_row():
    a, b = torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[1.1, 0.2], [0, 0]])
    assert relative(a, b, torch.zeros(1)) == pytest.approx(0.2 / 1.1)
    assert relative(a, b, torch.tensor([[2.0], [2]])) == pytest.approx(0.1)


def test_each_file_is_held_to_its_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAPPROX_DATA", str(tmp_path))
    path = next(iter(authors.hashes()))
    with pytest.raises(authors.AbsentError, match="authors-repo"):
        authors._fetched(path)
    (tmp_path / "authors-repo" / path).parent.mkdir(parents=True)
    (tmp_path / "authors-repo" / path).write_bytes(b"another")
    with pytest.raises(ValueError, match="not the expected file"):
        authors._fetched(path)
