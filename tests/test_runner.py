"""The runner: killed, interrupted, corrupted, out of date or without a place to write, results are right or redone."""

import errno
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import tyro

from experiments import (
    correspondence,
    data,
    files,
    networks,
    no_free_lunch,
    paper,
    perturbations,
    recovery,
    runs,
    schedule,
)
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
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from experiments import perturbations
from experiments.paper import Options, run_all
from tests.test_runner import CONFIGS

out, held, *only = sys.argv[1:]
compute = perturbations.compute

def wait(*arguments):
    while Path(held).exists():
        time.sleep(0.1)
    return compute(*arguments)

perturbations.compute = wait  # in workers too: they import this file
if __name__ == "__main__":
    raise SystemExit(run_all(CONFIGS, Options(Path(out), only=tuple(only), list=held == "list", jobs=2)))
"""
# What users may have in the folders of a run, with names much like its own.
FOREIGN = [
    *(
        "thesis/chapter.part2.docx",
        "backup.part01.rar",
        "data.partition.csv",
        "a.123.part.csv",
        "manifest.json",
        ".lock",
    ),
    *("correspondence/notes.csv", "correspondence/manifest.json", "recovery/.locapprox-unfinished-notes.csv"),
    *(
        f"correspondence/diabetes-linear/{name}"
        for name in ("mine.csv", "m.json", "m.png", "m.pdf", "m.html", "sub/m.csv")
    ),
    *(f"recovery/diabetes-linear/{name}" for name in ("recovery.1.part.csv", "recovery.csv.part", "empty.csv")),
    *("recovery/diabetes-linear/.locapprox-unfinished-/a.csv", "recovery/diabetes-linear/.unfinished-abcdefgh/a.csv"),
    *("networks/mine.npz", "networks/left.1.part.npz", "networks/.locapprox-unfinished-chapter-1/a.npz"),
    *(
        "originals/mine.part.npz",
        "figures/mine.png",
        "figures/index.part.html",
        "theory/mine.csv",
        "theory/figures/m.pdf",
    ),
]


def foreign(out):
    """Each of these files, what it holds and when it was changed; they are written where there are none yet."""
    for name in FOREIGN:
        path = out / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("" if "empty" in name else f"{name}, of somebody else")
    return {name: ((out / name).read_text(), (out / name).stat().st_mtime_ns) for name in FOREIGN}


def everything(out):
    for config in CONFIGS:
        paper.entry(config)(config, out)


def ours(out):
    """The files that a run has written, finished or not."""
    every = (path for path in out.rglob("*") if path.is_file() and path.name != files.LOCK)
    return sorted(path for path in every if path.relative_to(out).as_posix() not in FOREIGN)


def contents(out):
    """Every file of the run; of a manifest what the results depend on and what they are."""
    written = {path.relative_to(out).as_posix(): path.read_bytes() for path in ours(out)}
    changing = {"wall_seconds", "command", "sha256", "commit"}
    return {
        name: {
            k: v
            for k, v in json.loads(text).items()
            if k not in (changing | {"data"} if name.startswith("figures") else changing)  # there sha256 of manifests
        }
        if name.endswith("manifest.json")
        else text
        for name, text in written.items()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    everything(out)
    return out


class Run:
    """A real run in processes of its own, and what it says; perturbations wait as long as there is a file `held`."""

    def __init__(self, out, tmp_path, *only, held="nothing"):
        script = tmp_path / "small.py"
        script.write_text(SCRIPT)
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(out), str(held), *only],
            stdout=subprocess.PIPE,
            stderr=(tmp_path / "stderr").open("a"),
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )

    def until(self, *words):
        """The first line with any of the words; None if it ends without."""
        for line in self.process.stdout:
            if any(word in line for word in words):
                return line
        return None

    def end(self):
        """What it still says; it has long to say it, for machines are busy."""
        said, _ = self.process.communicate(timeout=600)
        return said

    def left(self, within):
        """Seconds until none of its processes is left."""
        start = time.perf_counter()
        while self.living():
            assert time.perf_counter() - start < within, "its workers go on"
            time.sleep(0.05)
        return time.perf_counter() - start

    def living(self):
        """The process ids of its group, zombies aside."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            except OSError:  # gone meanwhile
                continue
            if int(group) == self.process.pid and state != "Z":
                found.append(int(path.parent.name))
        return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="lists processes by /proc")


def results(out):
    """What a run says: all but its caches, of which the last power cut may have damaged one that nobody needs again."""
    return {name: text for name, text in contents(out).items() if not name.startswith(("networks/", "originals/"))}


def power_cut(out, rng):
    """What was written last may be on the disk in part, or not at all."""
    for path in rng.sample(found := ours(out), min(4, len(found))):
        path.write_bytes(path.read_bytes()[: rng.choice([0, 0, 0, 300])])


def disturbed(out, tmp_path, times, moments, only, after=None):
    """So many runs that end early, in turn by kill -9, SIGTERM and a power cut, seconds after a word was said.

    Returns for how many seconds their workers outlived them.
    """
    rng, outlived, moments = random.Random(1), list[float](), itertools.cycle(moments)
    while len(outlived) < times:
        end = ("kill", "term", "power cut")[len(outlived) % 3]
        run = Run(out, tmp_path, *only)
        if after:
            run.until(after)
        try:
            run.process.communicate(timeout=next(moments))
            assert run.process.returncode == 0
            for path in rng.sample(found := [p for p in ours(out) if p.name == "manifest.json"], len(found) // 2):
                path.unlink()  # there is something to do again
            continue
        except subprocess.TimeoutExpired:
            run.process.send_signal(signal.SIGTERM if end == "term" else signal.SIGKILL)
        run.process.wait(600)
        outlived.append(run.left(within=60))
        run.end()
        assert run.process.returncode in ((130, -signal.SIGTERM) if end == "term" else (-signal.SIGKILL,))
        if end == "power cut":
            power_cut(out, rng)
    return outlived


@needs_proc
def test_killed_terminated_and_after_a_power_cut_the_results_are_the_same_bytes(undisturbed, tmp_path):
    """Nobody else's file is touched, and no worker outlives its parent."""
    out = tmp_path / "out"
    before = foreign(out)
    disturbed(out, tmp_path, 3, [0.0, 0.5, 1.0], EXPERIMENTS, after="finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "run", lambda tasks, jobs: [task.call() for task in tasks] and {})
        assert paper.run_all(CONFIGS, Options(out, only=EXPERIMENTS)) == 0
    assert contents(out) == contents(undisturbed)
    assert foreign(out) == before


@pytest.mark.slow
@needs_proc
def test_killed_at_thirty_random_moments_the_results_are_the_same_bytes(tmp_path):
    """Figures too."""
    start = time.perf_counter()
    whole, out, everything = tmp_path / "whole", tmp_path / "out", (*EXPERIMENTS, "figures")
    run = Run(out, tmp_path, *everything)
    run.end()
    assert run.process.returncode == 0
    out.rename(whole)  # so that the page shows the same commands
    seconds, rng, before = time.perf_counter() - start, random.Random(0), foreign(out)
    outlived = disturbed(out, tmp_path, 30, [rng.uniform(0, seconds) for _ in range(100)], everything)
    run = Run(out, tmp_path, *everything)
    run.end()
    assert run.process.returncode == 0
    assert results(out) == results(whole)
    assert foreign(out) == before
    *most, longest = sorted(outlived)
    said = f"{seconds:.0f} s undisturbed, {time.perf_counter() - start:.0f} s in all"
    print(f"{said}; their workers within {most[-1]:.2f} s, in one case {longest:.2f} s")
    assert most[-1] < 3  # one may have been starting: it ends when it is imported


@needs_proc
def test_ctrl_c_ends_at_once_and_the_same_command_goes_on(undisturbed, tmp_path):
    out, held = tmp_path / "out", tmp_path / "held"
    held.touch()  # some tasks never end
    run = Run(out, tmp_path, *EXPERIMENTS, held=held)
    run.until(*(f"finished {name}" for name in EXPERIMENTS))
    os.killpg(run.process.pid, signal.SIGINT)
    said = run.end()
    assert run.process.returncode == 130
    assert "the same command goes on from there" in said
    run.left(within=60)
    done = {path: path.read_bytes() for path in out.glob("*/*/manifest.json")}
    assert 1 <= len(done) <= len(CONFIGS) - 2
    assert not list(out.rglob(f"{files.UNFINISHED}*"))

    held.unlink()
    run = Run(out, tmp_path, *EXPERIMENTS)
    assert int(run.until("are done already").split()[0]) == len(done)
    run.end()
    assert run.process.returncode == 0
    assert contents(out) == contents(undisturbed)
    assert all(path.read_bytes() == text for path, text in done.items())


def test_a_ctrl_c_while_a_worker_starts_is_heard():
    def start():
        with schedule._deaf():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        start()


def test_a_second_run_computes_nothing_and_loads_no_model(undisturbed, monkeypatch, capsys):
    def never(*args, **kwargs):
        raise AssertionError("nothing is left to compute")

    monkeypatch.setattr(networks, "trained", never)
    monkeypatch.setattr(schedule, "run", never)
    assert paper.run_all(CONFIGS, Options(undisturbed, only=EXPERIMENTS)) == 0
    assert f"{len(CONFIGS)} of {len(CONFIGS)} tasks are done already" in capsys.readouterr().out


def test_list_says_what_is_done_stale_and_missing(undisturbed, monkeypatch, capsys):
    other = [replace(CONFIGS[0], points=3), *CONFIGS[1:]]
    more = [*other, no_free_lunch.Config("diabetes", "mlp")]
    assert paper.run_all(more, Options(undisturbed, list=True)) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["correspondence/diabetes-linear"].startswith(
        "stale: made from something else: config points (2 then, 3"
    )
    assert lines["recovery/diabetes-linear"] == "done"
    assert lines["no_free_lunch/diabetes-mlp"] == lines["figures"] == lines["theory"] == "missing"
    assert len(lines) == len(more) + 2
    assert paper.run_all(more, Options(undisturbed, ("*/diabetes-mlp", "recovery"), list=True)) == 0
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
    eight = ("correspondence", "perturbations", "no_free_lunch", "authors_models")
    for experiment, models in {**dict.fromkeys(eight, 8), "recovery": 2}.items():
        assert sum(name.startswith(f"{experiment}/") for name in names) == models, experiment
    assert any(name.startswith("changes/") for name in names)
    tables = {config.data for config in demo.CONFIGS}
    assert tables == {"digits", "breast_cancer", "diabetes"}


def test_what_needs_the_authors_files_is_skipped_with_a_sentence_where_they_are_absent(tmp_path, monkeypatch, capsys):
    from experiments import authors, authors_models

    def absent(table, model):
        raise authors.AbsentError(authors.ABSENT)

    monkeypatch.setattr(authors, "files", absent)
    monkeypatch.setattr(authors_models, "load", lambda name: data.load("diabetes"))
    configs = [authors_models.Config("who", "linear"), authors_models.Config("who", "ffnnA")]
    for force in (False, True):
        assert paper.run_all(configs, Options(tmp_path, only=("authors_models",), force=force)) == 0
        said = capsys.readouterr().out
        assert "authors_models/who-linear, authors_models/who-ffnnA: skipped, since the authors' files are nei" in said


def test_one_run_at_a_time_in_a_folder(tmp_path, capsys):
    with paper.alone(tmp_path):
        assert paper.run_all(CONFIGS, Options(tmp_path)) == 1
    assert "another run writes to" in capsys.readouterr().out


def test_a_run_that_has_nothing_to_do_touches_nothing(tmp_path, monkeypatch):
    before = foreign(tmp_path)
    monkeypatch.setattr(paper, "figures", lambda out, force=False: out / "figures")
    for _ in range(2):
        assert paper.run_all([], Options(tmp_path, only=("figures",))) == 0
    assert foreign(tmp_path) == before


def test_what_killed_runs_left_goes_unless_it_is_in_use(tmp_path):
    mine, used = (tmp_path / f"recovery/{name}" for name in ("diabetes-linear", "breast_cancer-logistic"))
    for folder in (mine, used, tmp_path / "elsewhere"):
        (folder / f"{files.UNFINISHED}abcd_123").mkdir(parents=True)
        (folder / f"{files.UNFINISHED}abcd_123" / "half.csv").write_text("a,")
    with files.alone(used, 0), paper.alone(tmp_path, [mine, used]):
        pass
    assert {path.parent.name for path in tmp_path.rglob("*_123")} == {used.name, "elsewhere"}


def test_list_downloads_nothing(tmp_path, monkeypatch, capsys):
    def download(*args, **kwargs):
        raise AssertionError("a download")

    monkeypatch.delenv("LOCAPPROX_DATA", raising=False)
    monkeypatch.setattr(data.pooch, "retrieve", download)
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / name)
    assert paper.run_all([recovery.Config("who", "linear")], Options(tmp_path, list=True)) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.split(maxsplit=1)[1] == "unknown: who-clean-train80-normalized.csv is not here yet; a run downloads it"
    with pytest.raises(AssertionError, match="a download"):
        data.fetch("who", "who-clean-train80-normalized.csv")


def test_who_reads_the_list_may_stop_reading(tmp_path):
    run = Run(tmp_path, tmp_path, held="list")
    run.process.stdout.close()  # as `head` does
    assert run.process.wait(600) == 0
    said = (tmp_path / "stderr").read_text()
    assert "Error" not in said
    assert "Exception" not in said


def test_a_printed_command_is_one_for_a_shell():
    config = no_free_lunch.Config("my data.csv", target="$y", neighbourhoods=("a:B", "it's"), width=2.5)
    words = shlex.split(config.command(Path("my results")))
    assert words[:3] == ["python", "-m", "experiments.no_free_lunch"]

    def given(config: no_free_lunch.Config, out: Path):
        return config, out

    assert tyro.cli(given, args=words[3:], config=(tyro.conf.OmitArgPrefixes,)) == (config, Path("my results"))
    assert paper.command(None, "theory", Path("a b")) == "python -m theory_checks --out 'a b/theory'"


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
    assert list(json.loads((tmp_path / "it" / "manifest.json").read_text())["files"]) == ["first.csv"]  # never mixed
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


def test_the_commit_is_this_projects(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commits():
        for place in places:
            monkeypatch.setattr(runs, "ROOT", place)
            yield runs.commit()

    if shutil.which("git") is None:
        pytest.skip("no git")
    places = [tmp_path, tmp_path / ".venv" / "site-packages", tmp_path / "vendor"]
    for place in places:
        (place / "experiments").mkdir(parents=True, exist_ok=True)
        (place / "experiments" / "runs.py").write_text("")
    git("init", "--quiet")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git("add", ".gitignore", "vendor")
    git("commit", "--quiet", "--message", "somebody's project, with copies of this one")
    assert list(commits()) == [None, None, None]
    git("add", ".")
    git("commit", "--quiet", "--message", "this project")
    assert list(commits()) == [git("rev-parse", "HEAD"), None, None]
    (tmp_path / "new").touch()
    assert next(commits()).endswith("+")


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

    before = {path: path.read_bytes() for path in (tmp_path / "it").glob("[!.]*")}
    other = tmp_path / "kept.csv"
    other.write_text("a\n")
    real = open
    with monkeypatch.context() as patch:
        if where == "open":
            patch.setattr("builtins.open", lambda f, *a, **k: refuse() if "first.csv" in str(f) else real(f, *a, **k))
        elif where == "replace":
            patch.setattr(os, "replace", refuse)
        else:
            patch.setattr(runs.tempfile, "TemporaryFile", refuse)
        with pytest.raises(type(error), match=message + r".*--out; finished results are kept") as caught:
            made(Settings(2))
    assert caught.value.__cause__ is error
    assert not list(tmp_path.rglob(f"{files.UNFINISHED}*"))
    assert {path: path.read_bytes() for path in before} == before
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
    assert files.digest(tmp_path / "who" / file) in said
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

    def draw(results, out):
        drawn.append(1)
        (out / "index.html").write_text("page")
        (out / "a.png").write_bytes(b"png")

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
