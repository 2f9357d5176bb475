"""No free lunch: the statement on small runs, its statistic by hand, what users bring, and the figure."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import locapprox as lx
from experiments import no_free_lunch, user
from experiments.no_free_lunch import Config
from paper_figures import no_free_lunch as figure
from paper_figures.results import read
from paper_figures.style import style

SMALL = Config("diabetes", "mlp", points=12, n_samples=600, replicates=3, width=3.2, seeds=2, points_per_seed=12)
CODE = """
import torch
import locapprox as lx

class Sphere:
    def draw(self, x, n, rng):
        z = torch.randn(n, x[0].numel(), generator=rng, dtype=x.dtype)
        return lx.Draw(0.5 * z / z.norm(dim=1, keepdim=True), torch.ones(n))

    def place(self, x, xi):
        return x[:, None] + xi

class Unseeded(Sphere):
    def draw(self, x, n, rng):
        return lx.Draw(torch.randn(n, x.shape[1]), torch.ones(n))

class Needy(Sphere):
    def __init__(self, radius):
        pass

tight = lx.c_lime(0.02)
near = lx.Additive(lx.Normal(0.3))

def network():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))

def three():
    return torch.nn.Linear(3, 3)

def broken():
    raise OSError("no such file")

def forest():
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier
    table = pd.read_csv("my.csv")
    return RandomForestClassifier(5, random_state=0).fit(table.drop(columns="y"), table["y"] > 0)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    for model in ("mlp", "linear"):
        no_free_lunch.main(replace(SMALL, model=model), out)
    return out


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with code and a table, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_code", raising=False)
    (tmp_path / "my_code.py").write_text(CODE)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(5, 3, size=(120, 3)), columns=["age", "dose", "time"])
    frame["y"] = np.sin(frame["age"]) + frame["dose"] - frame["dose"].mean()
    frame.to_csv("my.csv", index=False)
    return frame


def test_no_method_is_at_the_optimum_everywhere_unless_the_model_is_linear(results):
    found = read(results, "no_free_lunch")
    curved, straight = (
        found.of("verdict", "diabetes", m).set_index(["method", "training_seed"]) for m in ("mlp", "linear")
    )
    assert set(curved.index) == set(itertools.product(lx.paper_methods(), (0, 1)))
    assert (curved["worse"] > 0).all()
    assert (straight["equivalent"] == 8).all()  # no feature is at the baseline here
    parts = found.of("matrix", "diabetes", "linear")
    assert parts[["blind", "mean_division", "mean_nonlinear"]].abs().max(axis=None) < 1e-9  # the model is float32
    bent = found.of("matrix", "diabetes", "mlp")
    assert (bent[bent["nonlinear_state"] == "worse"].groupby("training_seed")["method"].nunique() == 8).all()
    additive = found.of("matrix", "diabetes", "linear").query("method in ['C-LIME', 'SmoothGrad', 'Vanilla Gradients']")
    assert len(additive) == 2 * 24
    assert additive["lost"].abs().max() < 1e-10  # the model is float32


def test_on_its_own_neighbourhood_a_method_loses_next_to_nothing(results):
    matrix = read(results, "no_free_lunch").of("matrix", "diabetes", "mlp").query("training_seed == 0")
    own = matrix[matrix["method"] == matrix["neighbourhood"]]
    assert len(own) == 8
    assert own["lost"].max() < 0.01
    elsewhere = matrix.groupby("method")["lost"].max()
    assert (elsewhere > 4 * own.set_index("method")["lost"].reindex(elsewhere.index)).all()


def test_the_figure_has_a_panel_per_model_and_says_what_it_shows(results, tmp_path):
    with style():
        drawn = figure.draw(read(results, "no_free_lunch"), tmp_path / "figure")
    assert drawn.image.stat().st_size > 10_000
    assert drawn.image.with_suffix(".pdf").is_file()
    said = "Shown to be worse than the optimum nowhere, first network: all (Diabetes, linear); none (Diabetes, MLP)."
    assert said in drawn.caption
    with pytest.raises(FileNotFoundError, match="no_free_lunch has no finished run"):
        read(tmp_path, "no_free_lunch")
    networks = drawn.numbers.set_index(["model", "method"])
    assert (networks["networks"] == 2).all()
    assert (networks.loc["linear", "nowhere_worse"] == 2).all()
    assert (networks.loc["mlp", "nowhere_worse"] == 0).all()


def test_from_the_command_line_with_ones_own_table_and_neighbourhood(mine):
    words = "--data my.csv --target y --neighbourhoods my_code:Sphere --points 6 --n-samples 300 --width 3 --seeds 1"
    command = [sys.executable, "-m", "experiments.no_free_lunch", *words.split(), "--out", "out"]
    elsewhere = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(command, check=True, capture_output=True, timeout=250, env=elsewhere)
    matrix = pd.read_csv("out/no_free_lunch/my-mlp/matrix.csv")
    assert matrix["neighbourhood"].unique()[-1] == "Sphere"
    assert len(matrix) == 9 * 9
    with style():
        assert figure.draw(read(Path("out"), "no_free_lunch"), Path("out/figure")).image.is_file()


def test_a_table_is_standardised_on_its_training_rows(mine):
    table = user.table("my.csv", "y")
    assert table.task == "regression"
    assert table.features == ("age", "dose", "time")
    torch.testing.assert_close(table.x_train.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(table.x_train.std(0, correction=0), torch.ones(3))
    mine.assign(y=np.where(mine["y"] > 0, 2, 1)).to_csv("two.csv", index=False)
    assert user.table("two.csv", "y").y_train.unique().tolist() == [0, 1]


def test_ones_own_model_sees_the_units_of_the_file(mine):
    table = user.table("my.csv", "y")
    raw = mine.drop(columns="y").to_numpy()[user.split(len(mine))[1]]
    net, target = user.model("my_code:network", "my.csv", "y", table)
    assert target is None
    expected = net.model(torch.from_numpy(raw).float())
    torch.testing.assert_close(net(table.x_test), expected, atol=1e-5, rtol=1e-5)
    forest, target = user.model("my_code:forest", "my.csv", "y", table)
    assert target == 1
    import my_code

    frame = pd.DataFrame(raw, columns=["age", "dose", "time"])
    agree = np.isclose(forest.predict(table.x_test.numpy()), my_code.forest().predict_proba(frame)).all(1)
    assert agree.mean() > 0.95  # float32 may cross a threshold


def test_without_gradients_the_methods_that_need_them_are_left_out(mine):
    config = Config("my.csv", "my_code:forest", "y", points=6, n_samples=300, replicates=2, width=3.0)
    folder = no_free_lunch.main(config, Path("out"))
    methods = pd.read_csv(folder / "verdict.csv")["method"]
    assert set(methods) == {"LIME", "C-LIME", "KernelSHAP", "Occlusion"}


def test_neighbourhoods_may_be_classes_objects_and_methods(mine):
    x = user.table("my.csv", "y").x_explain
    assert user.method("my_code:Sphere", x).name == "Sphere"
    assert user.method("my_code:near", x).neighbourhood.distribution.sigma == 0.3
    assert user.method("my_code:tight", x).name == "C-LIME"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_code", "must be module:object"),
        ("absent:Sphere", r"No module named 'absent'\. Looked for absent in .*and among the installed"),
        ("my_code:Cube", r"my_code\.py has no Cube"),
        ("my_code:Unseeded", "'my_code:Unseeded': the neighbourhood breaks its contract: .*same generator seed"),
        ("my_code:Needy", "made without arguments: .*radius"),
    ],
)
def test_bad_names_are_explained(mine, name, message):
    with pytest.raises(ValueError, match=message):
        user.method(name, user.table("my.csv", "y").x_explain)


def test_taken_names_and_bad_models_are_explained(mine):
    config = Config("my.csv", target="y", points=4, neighbourhoods=("my_code:tight",))
    with pytest.raises(ValueError, match="names that are taken: C-LIME"):
        no_free_lunch.main(config, Path("out"))
    table = user.table("my.csv", "y")
    with pytest.raises(ValueError, match="a function that returns a model; it raised OSError"):
        user.model("my_code:broken", "my.csv", "y", table)
    with pytest.raises(ValueError, match="the model has 3 outputs"):
        user.model("my_code:three", "my.csv", "y", table)
    narrow = replace(table, x_explain=table.x_explain[:, :2])
    with pytest.raises(ValueError, match="the model failed on 2 features"):
        user.model("my_code:network", "my.csv", "y", narrow)


def test_bad_tables_are_explained(mine):
    with pytest.raises(FileNotFoundError, match=r"neither a table of experiments\.data nor a file"):
        user.table("absent.csv", "y")
    for target in ("z", None):
        with pytest.raises(ValueError, match=f"no column {target!r}.* it has age, dose, time, y"):
            user.table("my.csv", target)
    for name, bad, message in (
        ("text", mine.assign(dose="high", time="late"), "columns of text: dose, time"),
        ("blanks", mine.assign(age=mine["age"].where(mine.index > 2)), r"blanks in age \(3\)"),
        ("constant", mine.assign(time=1.0), "constant columns: time"),
        ("same", mine.assign(y=1.0), "constant columns: y"),
        ("short", mine.head(5), "5 rows and 4 columns"),
    ):
        bad.to_csv(f"{name}.csv", index=False)
        with pytest.raises(ValueError, match=f"{name}.csv .*{message}"):
            user.table(f"{name}.csv", "y")


def test_a_loaded_network_is_a_module(mine):
    assert isinstance(user.load("my_code:network")(), nn.Module)
