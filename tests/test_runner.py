"""The runner: killed, interrupted, corrupted, out of date or without a place to write, results are right or redone."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from experiments import correspondence, data, networks, no_free_lunch, paper, perturbations, recovery, runs, schedule
from experiments.paper import Options

ROOT = Path(__file__).resolve().parents[1]
TINY = {"points": 2, "n_samples": 150}
CONFIGS = [
    make(name, model)
    for name, model, width in (("diabetes", "linear", 3.2), ("breast_cancer", "logistic", 5.5))
    for make in (
        partial(correspondence.Config, **TINY, width=width, reference_points=1, reference_steps=1000, seeds=1),
        partial(recovery.Config, **TINY, width=width, seeds=1),
        partial(perturbations.Config, **TINY, width=width, seeds=1, draws=2),
        partial(no_free_lunch.Config, **TINY, width=width, replicates=2),
    )
]
EXPERIMENTS = ("correspondence", "recovery", "perturbations", "no_free_lunch")
SCRIPT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from experiments.paper import Options, run_all
from tests.test_runner import CONFIGS, EXPERIMENTS
if __name__ == "__main__":
    raise SystemExit(run_all(CONFIGS, Options(Path(sys.argv[1]), only=EXPERIMENTS, jobs=2)))
"""


def everything(out):
    for config in CONFIGS:
        paper.entry(config)(config, out)


def contents(out):
    """Every file but the lock; of a manifest what the results depend on and what they are."""
    files = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*.*")
        if path.is_file() and path.name != ".lock"
    }
    return {
        name: {k: v for k, v in json.loads(text).items() if k not in ("wall_seconds", "command", "sha256", "commit")}
        if name.endswith("json")
        else text
        for name, text in files.items()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out, start = tmp_path_factory.mktemp("undisturbed"), time.perf_counter()
    everything(out)
    return out, time.perf_counter() - start


def test_killed_at_ten_random_moments_the_results_are_the_same_bytes(undisturbed, tmp_path):
    whole, seconds = undisturbed
    moments, killed = random.Random(0), 0
    while killed < 10:
        child = multiprocessing.get_context("fork").Process(target=everything, args=(tmp_path,))
        child.start()
        child.join(moments.uniform(0, seconds / 4))
        if child.exitcode is None:
            child.kill()
            child.join()
            killed += 1
        elif (state := child.exitcode) == 0:  # finished before its moment: from the beginning
            assert contents_without_parts(tmp_path) == contents(whole)
            for path in tmp_path.glob("*/*/manifest.json"):
                path.unlink()
        else:
            raise AssertionError(f"a run ended with {state}")
    with paper.alone(tmp_path):
        everything(tmp_path)
    assert contents(tmp_path) == contents(whole)


def contents_without_parts(out):
    return {name: text for name, text in contents(out).items() if ".part" not in name}


class Run:
    """A real run in processes of its own, and what it says."""

    def __init__(self, out, tmp_path):
        script = tmp_path / "small.py"
        script.write_text(SCRIPT)
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )

    def until(self, *words):
        """The first line with any of the words."""
        for line in self.process.stdout:
            if any(word in line for word in words):
                return line
        raise AssertionError(f"never said {' or '.join(words)}")

    def signal(self, number):
        os.killpg(self.process.pid, number)


def test_ctrl_c_stops_within_seconds_and_a_killed_group_is_resumed(undisturbed, tmp_path):
    out = tmp_path / "out"
    run = Run(out, tmp_path)
    run.until(*(f"finished {name}" for name in EXPERIMENTS[:3]))
    start = time.perf_counter()
    run.signal(signal.SIGINT)
    said, _ = run.process.communicate(timeout=30)
    assert time.perf_counter() - start < 15  # and not the minutes that are left, on a busy machine too
    assert run.process.returncode == 130
    assert "the same command goes on from there" in said
    done = {path: path.read_bytes() for path in out.glob("*/*/manifest.json")}
    assert 1 <= len(done) < len(CONFIGS)
    assert not list(out.rglob("*.part*"))

    run = Run(out, tmp_path)
    assert int(run.until("are done already").split()[0]) == len(done)
    run.until("finished ")
    run.signal(signal.SIGKILL)
    run.process.communicate(timeout=30)
    half = out / "networks" / "left.1.part.npz"
    half.write_bytes(b"half")

    run = Run(out, tmp_path)
    run.process.communicate(timeout=100)
    assert run.process.returncode == 0
    assert contents(out) == contents(undisturbed[0])
    assert all(path.read_bytes() == text for path, text in done.items())


def test_a_second_run_is_near_instant_and_loads_no_model(undisturbed, monkeypatch, capsys):
    def never(*args, **kwargs):
        raise AssertionError("nothing is left to compute")

    monkeypatch.setattr(networks, "trained", never)
    monkeypatch.setattr(schedule, "run", never)
    start = time.perf_counter()
    assert paper.run_all(CONFIGS, Options(undisturbed[0], only=EXPERIMENTS)) == 0
    assert time.perf_counter() - start < 1
    assert f"{len(CONFIGS)} of {len(CONFIGS)} tasks are done already" in capsys.readouterr().out


def test_list_says_what_is_done_stale_and_missing(undisturbed, monkeypatch, capsys):
    other = [replace(CONFIGS[0], points=3), *CONFIGS[1:]]
    more = [*other, no_free_lunch.Config("diabetes", "mlp")]
    assert paper.run_all(more, Options(undisturbed[0], list=True)) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["correspondence/diabetes-linear"].startswith(
        "stale: made from something else: config points (2 then, 3"
    )
    assert lines["recovery/diabetes-linear"] == "done"
    assert lines["no_free_lunch/diabetes-mlp"] == lines["figures"] == lines["theory"] == "missing"
    assert len(lines) == len(more) + 2
    assert paper.run_all(more, Options(undisturbed[0], ("*/diabetes-mlp", "recovery"), list=True)) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["recovery/diabetes-linear", "recovery/breast_cancer-logistic", "no_free_lunch/diabetes-mlp"]


def test_an_unknown_name_lists_the_names(tmp_path, capsys):
    assert paper.run_all(CONFIGS, Options(tmp_path, only=("correspondence", "experiment9"))) == 1
    said = capsys.readouterr().out
    assert "--only experiment9 is none of the tasks" in said
    assert all(paper.name_of(config) in said for config in CONFIGS)


def test_the_paper_and_the_demo_have_every_experiment_on_their_models():
    from experiments import demo

    names = [paper.name_of(config) for config in paper.CONFIGS]
    assert len(set(names)) == len(names)
    for experiment, models in {"correspondence": 8, "recovery": 2, "perturbations": 8, "no_free_lunch": 8}.items():
        assert sum(name.startswith(f"{experiment}/") for name in names) == models, experiment
    assert any(name.startswith("changes/") for name in names)
    tables = {config.data for config in demo.CONFIGS}
    assert tables == {"digits", "breast_cancer", "diabetes"}


def test_one_run_at_a_time_in_a_folder(tmp_path, capsys):
    with paper.alone(tmp_path):
        assert paper.run_all(CONFIGS, Options(tmp_path)) == 1
    assert "another run writes to" in capsys.readouterr().out


def test_failures_stop_only_what_needs_them_and_the_longest_chain_starts_first(tmp_path, capsys):
    def task(name, seconds, call=None, *needs):
        return schedule.Task(name, call or partial(os.mkdir, tmp_path / name), seconds, needs)

    tasks = [
        task("short", 1),
        task("wrong", 30, partial(int, "x")),
        task("after wrong", 1, None, "wrong"),
        task("killed", 20, partial(os._exit, 1)),
        task("long", 5),
        task("first", 1),
        task("chain", 9, None, "first"),
        task("met", 0.5, None, "not a task"),
    ]
    failed = schedule.run(tasks, jobs=1)
    assert set(failed) == {"wrong", "after wrong", "killed"}
    assert failed["wrong"].startswith("ValueError: invalid literal for int()")
    assert failed["after wrong"].startswith("it needs wrong: ValueError")
    assert "killed" in failed["killed"]
    order = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("finished")]
    assert order == ["first", "chain", "long", "short", "met"]
    assert {path.name for path in tmp_path.iterdir()} == set(order)


def test_a_failure_is_said_at_the_end_with_the_command_that_repeats_it(tmp_path, monkeypatch, capsys):
    asked = []

    def run(tasks, jobs):
        asked.extend(tasks)
        return {"recovery/diabetes-linear": "ValueError: boom", "networks/x": "not to be said"}

    monkeypatch.setattr(schedule, "run", run)
    assert paper.run_all(CONFIGS, Options(tmp_path, only=EXPERIMENTS)) == 1
    said = capsys.readouterr().out
    assert "FAILED recovery/diabetes-linear: ValueError: boom" in said
    assert CONFIGS[1].command(tmp_path) in said
    assert "networks/x" not in said
    assert len({task.name for task in asked}) == len(asked) == len(CONFIGS) + 4  # two networks, two originals


@dataclass(frozen=True)
class Settings:
    n: int = 1


@pytest.fixture
def made(tmp_path):
    """A function that runs and returns how often it has computed, in a folder where it did once."""
    calls = []

    def compute():
        calls.append(1)
        names = ("first", "second") if len(calls) == 1 else ("first",)
        return {name: pd.DataFrame({"a": [1.5, 2.5]}) for name in names}, {"metrics": {"mse": 0.5}}

    def run(settings=None, hashes=None):
        runs.run(tmp_path / "it", settings or Settings(), hashes or {"f.csv": "0"}, compute, "python -m it")
        return len(calls)

    assert run() == 1
    return run


DAMAGE = {
    "a half-written table": ("first.csv", lambda text: text[: len(text) // 2], "first.csv is not what was written"),
    "an edited table": ("second.csv", lambda text: text.replace("2.5", "2.6"), "second.csv is not what was written"),
    "no table": ("first.csv", None, "first.csv is missing"),
    "a half-written manifest": ("manifest.json", lambda text: text[:200], "manifest.json cannot be read"),
    "an empty manifest": ("manifest.json", lambda text: "", "manifest.json cannot be read"),
    "a list as manifest": ("manifest.json", lambda text: "[1]", "manifest.json cannot be read"),
    "an edited manifest": ("manifest.json", lambda text: text.replace('"mse": 0.5', '"mse": 0.4'), "its own checksum"),
    "no manifest": ("manifest.json", None, "it was not finished"),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_named_and_computed_again(made, tmp_path, capsys, name, damage, message):
    path = tmp_path / "it" / name
    text = path.read_text()
    path.unlink()
    if damage:
        path.write_text(damage(text))
    assert made() == 2
    said = capsys.readouterr().out
    assert message in said
    assert "computed again" in said
    assert not (tmp_path / "it" / "second.csv").exists()  # of the first run: never mixed
    assert made() == 2
    assert "already there" in capsys.readouterr().out


def test_what_differs_is_named(made, monkeypatch, capsys):
    assert made(Settings(2)) == 2
    assert "config n (1 then, 2 now); computed again" in capsys.readouterr().out
    assert made(Settings(2), {"f.csv": "1"}) == 3
    assert "made from something else: data f.csv; computed again" in capsys.readouterr().out
    monkeypatch.setattr(runs, "code_version", lambda: "another")
    assert made(Settings(2), {"f.csv": "1"}) == 4
    assert "another version of the code; computed again" in capsys.readouterr().out
    version = runs.importlib.metadata.version
    monkeypatch.setattr(runs.importlib.metadata, "version", lambda name: "9" if name == "torch" else version(name))
    assert made(Settings(2), {"f.csv": "1"}) == 5
    assert f"packages torch ('{version('torch')}' then, '9' now); computed again" in capsys.readouterr().out


def test_the_code_version_is_that_of_what_computes(monkeypatch, tmp_path):
    sources = {"locapprox/a.py": "1", "experiments/x.py": "2", "experiments/paper.py": "3", "paper_figures/f.py": "4"}
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(runs, "ROOT", tmp_path)

    def version(changed=None):
        if changed:
            (tmp_path / changed).write_text("changed")
        return runs.code_version.__wrapped__()

    first = version()
    assert version("paper_figures/f.py") == version("experiments/paper.py") == first
    second = version("experiments/x.py")
    assert len({first, second, version("locapprox/a.py")}) == 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied"),
            r"it cannot be written \(Permission denied\). Choose another",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"it cannot be written \(No space left .*Free some space, or",
        ),
    ],
    ids=["no permission", "a full disk"],
)
@pytest.mark.parametrize("where", ["open", "replace", "probe"])
def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(made, tmp_path, monkeypatch, error, message, where):
    def refuse(*args, **kwargs):
        raise error

    other = tmp_path / "kept.csv"
    other.write_text("a\n")
    real = open
    with monkeypatch.context() as patch:
        if where == "open":
            patch.setattr("builtins.open", lambda f, *a, **k: refuse() if ".part" in str(f) else real(f, *a, **k))
        elif where == "replace":
            patch.setattr(os, "replace", refuse)
        else:
            patch.setattr(runs.tempfile, "TemporaryFile", refuse)
        with pytest.raises(type(error), match=message + r".*--out; finished results are kept") as caught:
            made(Settings(2))
    assert caught.value.__cause__ is error
    assert not list(tmp_path.rglob("*.part*"))
    assert not (tmp_path / "it" / "manifest.json").exists()
    assert other.exists()
    assert made(Settings(2)) == (2 if where == "probe" else 3)  # the probe comes before the computation


def test_a_wrong_data_file_is_named_with_both_hashes_and_stops_no_other_task(tmp_path, monkeypatch, capsys):
    file = "who-clean-train80-normalized.csv"
    (tmp_path / "who").mkdir()
    (tmp_path / "who" / file).write_text("1,2\n")
    monkeypatch.setenv("LOCAPPROX_DATA", str(tmp_path))
    monkeypatch.setattr(schedule, "run", lambda tasks, jobs: {})
    configs = [CONFIGS[0], correspondence.Config("who", "linear"), perturbations.Config("who", "linear")]
    assert paper.run_all(configs, Options(tmp_path / "out", only=("correspondence", "perturbations"))) == 1
    said = capsys.readouterr().out
    assert said.count(f"{file} is not the expected file") == 1
    assert data.SHA256[file] in said
    assert runs.digest(tmp_path / "who" / file) in said
    assert "FAILED correspondence/who-linear, perturbations/who-linear:" in said


def test_a_download_that_is_not_the_file_is_refused(monkeypatch):
    def other(*args, **kwargs):
        raise ValueError("SHA256 hash of downloaded file does not match the known hash: expected a but got b")

    monkeypatch.delenv("LOCAPPROX_DATA", raising=False)
    monkeypatch.setattr(data.pooch, "retrieve", other)
    with pytest.raises(ValueError, match=r"who-clean.* is not the expected file: .*expected a but got b") as caught:
        data.fetch("who", "who-clean-train80-normalized.csv")
    assert isinstance(caught.value.__cause__, ValueError)


def test_figures_are_drawn_again_only_when_results_change(tmp_path, monkeypatch):
    drawn = []

    def draw(results):
        drawn.append(1)
        (results / "figures" / "index.html").write_text("page")
        (results / "figures" / "a.png").write_bytes(b"png")

    monkeypatch.setattr(paper, "later", {"paper_figures": draw}.get)
    runs.run(tmp_path / "correspondence" / "x", Settings(), {}, lambda: ({}, {}), "it")
    paper.figures(tmp_path)
    paper.figures(tmp_path)
    assert len(drawn) == 1
    (tmp_path / "figures" / "a.png").write_bytes(b"edited")
    paper.figures(tmp_path)
    assert len(drawn) == 2
    runs.run(tmp_path / "correspondence" / "x", Settings(2), {}, lambda: ({}, {}), "it")
    paper.figures(tmp_path)
    assert len(drawn) == 3
