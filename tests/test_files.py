"""Results and caches: whole or not there, one run at a time in a folder, other people's files left alone."""

import itertools
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import correspondence, data, files, networks, originals, recovery, runs

RECIPE = networks.recipe("diabetes", "linear")


@dataclass(frozen=True)
class Settings:
    n: int = 1


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def never():
    raise AssertionError("computed again")


def now(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def it(tmp_path):
    """A folder with the results of Settings(1): first.csv and second.csv."""

    def compute():
        return {name: pd.DataFrame({"a": [1.5]}) for name in ("first", "second")}, {}

    return runs.run(tmp_path / "it", Settings(1), {}, compute, "it")


def tables():
    return {"first": pd.DataFrame({"a": [7]}), "third": pd.DataFrame({"b": [8]})}, {}


def test_results_are_replaced_when_the_new_ones_are_whole(it):
    """A computation that fails, or is stopped while it writes, leaves the old ones; users' files stay in any case."""
    names = ("mine.csv", "m.json", "m.png", "m.pdf", "m.html", "sub/m.csv", "a.1.part.csv")
    users = {it / name: name for name in names}
    for path, text in users.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    before = now(it)

    def fails():
        raise RuntimeError("boom")

    def half():
        class Table(pd.DataFrame):
            def to_csv(self, path, **kwargs):
                Path(path).write_text("a,")
                raise KeyboardInterrupt

        return {"first": pd.DataFrame({"a": [9]}), "second": Table()}, {}

    for compute, error in ((fails, RuntimeError), (half, KeyboardInterrupt)):
        for settings, force in ((Settings(2), False), (Settings(1), True)):
            with pytest.raises(error):
                runs.run(it, settings, {}, compute, "it", force)
            assert now(it) == before
    runs.run(it, Settings(1), {}, never, "it")
    runs.run(it, Settings(2), {}, tables, "it")
    assert now(it).keys() == (before.keys() - {it / "second.csv"}) | {it / "third.csv"}
    assert {path: path.read_text() for path in users} == users


def test_of_the_run_before_a_file_that_somebody_edited_stays(it):
    (it / "second.csv").write_text("mine now")
    runs.run(it, Settings(2), {}, tables, "it")
    assert (it / "second.csv").read_text() == "mine now"
    assert list(manifest(it)["files"]) == ["first.csv", "third.csv"]


@pytest.mark.parametrize("moved", range(3))
def test_a_move_that_was_cut_short_is_finished(it, monkeypatch, moved):
    """Killed after so many of three files were moved: the next run moves the others and computes nothing."""
    move, count = files.move, itertools.count()

    def stops(part, path):
        if next(count) == moved:
            raise SystemExit("killed")
        move(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "move", stops)
        patch.setattr(shutil, "rmtree", lambda *a, **k: None)  # kill -9 removes nothing
        with pytest.raises(SystemExit):
            runs.run(it, Settings(2), {}, tables, "it")
    assert (it / "second.csv").exists() == (moved < 2)
    runs.run(it, Settings(2), {}, never, "it")
    assert {path.name for path in it.iterdir()} == {"first.csv", "third.csv", "manifest.json", files.LOCK}
    assert (it / "first.csv").read_text() == "a\n7\n"


def test_two_configs_never_mix_in_one_folder(tmp_path, monkeypatch):
    """The second says who is in its way or, if it waits long enough, comes after the first."""
    it, said = tmp_path / "it", []

    def table(n, meanwhile=lambda: None):
        meanwhile()
        return {"n": pd.DataFrame({"n": [n]})}, {}

    def second():
        try:
            runs.run(it, Settings(2), {}, lambda: table(2), "it")
        except ValueError as error:
            said.append(str(error))

    def refused():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    monkeypatch.setattr(files, "PATIENCE", 0.2)
    runs.run(it, Settings(1), {}, lambda: table(1, refused), "it")
    assert said == [f"another run writes to {it}: wait for it, or choose another --out"]
    assert manifest(it)["config"] == {"n": 1}
    assert (it / "n.csv").read_text() == "n\n1\n"

    monkeypatch.setattr(files, "PATIENCE", 60)
    waits = threading.Thread(target=second)
    runs.run(it, Settings(1), {}, lambda: table(1, waits.start), "it", force=True)
    waits.join()
    assert len(said) == 1
    assert manifest(it)["config"] == {"n": 2}
    assert (it / "n.csv").read_text() == "n\n2\n"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names open files by /proc")
def test_files_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, Path.replace

    def synced(number):
        done.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        fsync(number)

    def replaced(part, path):
        done.append(f"{part.name} -> {path.name}")
        return replace(part, path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    files.store(tmp_path / "a.npz", {"w": np.ones(3)})
    runs.run(tmp_path / "it", Settings(), {}, lambda: ({"t": pd.DataFrame({"a": [1]})}, {}), "it")
    assert done[:3] == ["a.npz", "a.npz -> a.npz", tmp_path.name]
    assert done[3:6] == ["t.csv", "t.csv -> t.csv", "it"]
    assert done[6:] == ["manifest.json", "manifest.json -> manifest.json", "it"]


def test_in_a_cache_only_what_is_unfinished_goes(tmp_path):
    half, users = tmp_path / f"{files.UNFINISHED}abcd_123", tmp_path / "a.123.part.npz"
    half.mkdir()
    (half / "a.npz").write_bytes(b"half")
    users.write_bytes(b"mine")
    files.store(tmp_path / "a.npz", {"w": np.ones(3)})
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", users.name, files.LOCK}
    assert users.read_bytes() == b"mine"


def repacked(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)


def with_first(change):
    def changed(arrays):
        name = next(name for name in arrays if name != files.CHECKSUM)
        arrays[name] = change(arrays[name])

    return changed


DAMAGE = {
    "empty": lambda path, other: path.write_bytes(b""),
    "half": lambda path, other: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros at the end": lambda path, other: path.write_bytes(path.read_bytes()[:-400] + bytes(400)),
    "text": lambda path, other: path.write_text("moved elsewhere"),
    "one array": lambda path, other: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(200)),
    "objects": lambda path, other: np.savez(path, w=np.array([{}], dtype=object)),
    "no array": lambda path, other: np.savez(path),
    "one array less": lambda path, other: repacked(path, lambda arrays: arrays.pop(next(iter(arrays)))),
    "another shape": lambda path, other: repacked(path, with_first(lambda a: np.concatenate([a, a]))),
    "other weights": lambda path, other: repacked(path, with_first(lambda a: 2 * a)),
    "another network": lambda path, other: shutil.copy(other, path),
    "an archive of before": lambda path, other: repacked(path, lambda arrays: arrays.pop(files.CHECKSUM)),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Five networks in a cache."""
    cache = tmp_path_factory.mktemp("trained")
    return cache, networks.trained(data.load("diabetes"), RECIPE, cache)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_network_is_named_and_trained_again(trained, tmp_path, capsys, monkeypatch, damage):
    """To the same bytes; the training itself is replayed."""
    cache, first = tmp_path / "networks", trained[1]
    shutil.copytree(trained[0], cache)
    seeds = [networks.trained(data.load("diabetes"), networks.replace(RECIPE, seed=s), cache).network for s in range(5)]
    monkeypatch.setattr(networks, "_train", lambda table, training, which: seeds)
    path, other = sorted(cache.glob("diabetes-linear-*.npz"))[:2]
    whole = path.read_bytes()
    damage(path, other)
    again = networks.trained(data.load("diabetes"), RECIPE, cache)
    said = capsys.readouterr().out
    assert f"{path} cannot be used (" in said
    assert said.rstrip().endswith("computed again")
    assert again.sha256 == first.sha256
    assert path.read_bytes() == whole
    networks.trained(data.load("diabetes"), RECIPE, cache)
    assert not capsys.readouterr().out


def test_captums_explanations_are_computed_again_when_damaged(trained, tmp_path, capsys):
    config = correspondence.Config("diabetes", "linear", points=2, n_samples=50)
    p = correspondence.problem(config, data.load("diabetes"), trained[1].network)
    first = originals.computed(p, 0, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    for damage in ("empty", "other weights"):
        DAMAGE[damage](path, None)
        again = originals.computed(p, 0, tmp_path)
        assert f"{path} cannot be used (" in capsys.readouterr().out
        assert path.read_bytes() == whole
        assert all(torch.equal(first[name], again[name]) for name in originals.ORIGINALS)


def test_manifests_hold_the_sha256_of_the_networks(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "networks")
    folder = recovery.main(recovery.Config("diabetes", "linear", points=2, n_samples=150, seeds=2), tmp_path)
    found = networks.several(data.load("diabetes"), RECIPE, 2, trained[0])
    hashes = manifest(folder)["networks"]
    assert hashes == [one.sha256 for one in found]
    assert len(set(hashes)) == 2
    with torch.no_grad():
        found[0].network.state_dict()["linear.bias"] += 1e-3
    assert found[0].sha256 not in hashes
