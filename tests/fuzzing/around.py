"""Everything outside `explain`: evaluation, files, slices, images, names, contexts, and calls that must be refused."""

import json
import os
import tempfile
import threading
import zipfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt

import locapprox as lx
from locapprox.fit.seeds import generator
from locapprox.neighbourhoods.base import described

from . import things
from .areas import Plan, paper, refused, untouched
from .oracle import Wrong, answers, close, multiplicative
from .things import NAMES, Task, truths

mpl.use("Agg")
F64 = torch.float64
ARRAYS = ("weights", "intercept", "standard_error", "loss", "r2", "degrees_of_freedom", "n_samples", "x")


def same(name, e, other, tolerance=1e-9):
    for part in ARRAYS:
        got, right = getattr(e, part).double(), getattr(other, part).double()
        close(
            f"{name}: {part}", torch.nan_to_num(got, posinf=9e9), torch.nan_to_num(right, posinf=9e9), tolerance, 1e-6
        )


def quick(model, x, method, **settings):
    return lx.explain(model, x, method, **{"n_samples": 60, "progress": False, **settings})


# ---- what an explanation offers


def metamorphic(chance):
    """Instances permuted, alone, in other batches; f·2, f + c, columns permuted, outputs joined."""
    d = chance.of("d", [1, 2, 3, 5])
    x, task = torch.from_numpy(chance.normal(4, d)), Task(chance, d, 2)
    method = paper(chance, x.numpy()).method
    base = chance.of("baseline", ["one", "each"])
    exact = {"occlusion": lx.occlusion, "shap": lx.kernel_shap, "ig": lx.integrated_gradients}

    def f(a):
        return task(a)[:, 0]

    with untouched(x):
        e = quick(f, x, method)

    def permuted():
        order = torch.from_numpy(chance.rng.permutation(4))
        same("permuted", quick(f, x[order], method), e[order])

    def alone():
        i = int(chance.rng.integers(4))
        same("alone", quick(f, x[i : i + 1], method), e[i])

    def batches():
        same("batch_size", quick(f, x, method, batch_size=chance.of("batch_size", [1, 2, 5, 1000, np.int64(3)])), e)

    def doubled():
        close("2 f", quick(lambda a: 2 * f(a), x, method).weights, 2 * e.weights, 1e-9, 1e-3)

    def shifted():
        close("f + 1", quick(lambda a: f(a) + 1, x, method).weights, e.weights, 1e-7, 1.0)

    def flat():
        close("0 f", quick(lambda a: 0 * f(a) + 3, x, method).weights, 0 * e.weights, 1e-9, 1.0)

    def columns():
        order = torch.from_numpy(chance.rng.permutation(d))
        own = chance.of("exact", exact)
        b = x[0] / 2 if base == "one" else x.flip(0) / 2
        right = quick(f, x, own(b), n_samples=64).weights[:, order]
        got = quick(lambda a: f(a[:, order.argsort()]), x[:, order], own(b[..., order]), n_samples=64)
        close("columns", got.weights, right, 1e-7)

    def outputs():
        both = quick(task, x, method, target=range(2))
        close("target=range", both.weights[:, 0], e.weights, 1e-9)
        close("target=1", quick(task, x, method, target=1).weights, both.weights[:, 1], 1e-9)

    def again():
        same("again", quick(f, x, method), e, 0.0)

    rules = (permuted, alone, batches, doubled, shifted, flat, columns, outputs, again)
    chance.of("rule", {rule.__name__: rule for rule in rules})()


def explanation(chance):
    """Slices, concat, files, predict, interval, frames, points, validate, plots."""
    d = chance.of("d", [2, 3, 5])
    a, task = chance.normal(4, d), Task(chance, d, 2)
    x = things.frame(a) if chance.of("x", ["tensor", "frame"]) == "frame" else torch.from_numpy(a)
    one = (
        paper(chance, a)
        if isinstance(x, torch.Tensor)
        else Plan(lx.kernel_shap(), lambda i: multiplicative(np.zeros((1, d))))
    )
    target = chance.of("target", [0, range(2)])
    e = quick(task, x, one.method, target=target)

    def sliced():
        cut = int(chance.rng.integers(1, 4))
        same("concat", lx.concat([e[:cut], e[cut:]]), e)
        same("reversed", e[::-1][::-1], e)
        same("iterated", lx.concat(list(e)), e)

    def saved():
        with tempfile.TemporaryDirectory() as folder:
            name = chance.of("name", ["e", "a.b", "e.npz", "sub dir", "ü"])
            path = e.save(Path(folder) / name)
            other = lx.load(path)
            same("loaded", other, e, 0.0)
            same("loaded slices", lx.concat([other[:2], other[2:]]), e, 0.0)
            close("predict", other.predict(x), e.predict(x), 0.0)

    def predicted():
        xi = e.points(1)[0].xi.double().numpy()
        rows = one.place(1)(a[1], xi)[0].mean(1)
        inputs = np.broadcast_to(rows, (4, *rows.shape)).copy()
        flat = e.weights[1].reshape(-1, d).double().numpy()
        right = xi @ flat.T + e.intercept[1].reshape(1, -1).double().numpy()
        got = e.predict(torch.from_numpy(inputs))[1].reshape(len(flat), -1).T
        close("predict", got, right, 1e-6, float(np.abs(flat).max()))

    def framed():
        table = e.to_frame()
        close("weights", table["weight"].to_numpy().reshape(e.weights.shape), e.weights, 0.0)
        names = NAMES[:d] if isinstance(x, pd.DataFrame) else [str(i) for i in range(d)]
        if list(table["feature"][:d]) != names:
            raise Wrong(f"names {list(table['feature'][:d])}, not {names}")

    def bounds():
        from scipy.stats import t

        level = chance.of("level", [0.1, 0.5, 0.95, np.float64(0.999)])
        half = t.ppf((1 + level) / 2, e.degrees_of_freedom.numpy()).reshape(-1, *[1] * (e.weights.ndim - 1))
        close("interval", e.interval(level)[1], e.weights.numpy() + half * e.standard_error.numpy(), 1e-9)

    def fresh():
        if isinstance(target, range):
            return
        loss = e.validate(40, seed=3)
        for i in range(4):
            where = described(one.method.neighbourhood)
            xi, w = draws(where, e.x[i : i + 1], 40, 3, "validate")
            gradient = one.method.loss.gradient
            y, g = answers(truths(task, lambda i: 0, 1)[0], one.place(i), a[i], xi, gradient > 0)
            rows = np.isfinite(w)
            flat = e.weights[i].numpy()
            gap = one.method.loss.value * (y - xi @ flat - float(e.intercept[i])) ** 2
            gap = gap + (gradient * ((g - flat) ** 2).sum(1) if gradient else 0)
            close("validate", loss[i], (w * gap)[rows].sum() / w[rows].sum(), 1e-6, 1e-9)

    def averaged():
        if isinstance(target, range):
            return
        mean, error = lx.explain_mean(task, x, one.method, target=0, n_samples=60, replicates=3, progress=False)
        runs = torch.stack([quick(task, x, one.method, target=0, seed=s).weights.mean(0) for s in range(3)])
        close("mean", mean, runs.mean(0), 1e-9)
        close("its error", error, runs.std(0) / 3**0.5, 1e-6, 1e-9)

    def drawn():
        features = chance.of("features", [(0, 1), (1, 0)])
        e.plot(instance=int(chance.rng.integers(4)), top=chance.of("top", [1, 3, 99]))
        e.plot_points(instance=1, features=features)
        plt.close("all")
        str(e), e._repr_html_()
        close("on_input", e.on_input(), e.weights, 0.0)

    checks = (sliced, saved, predicted, framed, bounds, fresh, averaged, drawn)
    with untouched(x):
        chance.of("what", {check.__name__: check for check in checks})()


def draws(where, x, n, seed, role):
    """The library's own draw: ξ (n, d) and weights (n,) of one instance."""
    blocks = list(where.blocks(x, n, generator(seed, where, role, x)))
    return (
        np.concatenate([np.asarray(getattr(b, k)).reshape(-1, *s) for b in blocks])
        for k, s in (("xi", (blocks[0].xi.shape[-1],)), ("weight", ()))
    )


# ---- files


def rewritten(change):
    """A saved file with its arrays or its text changed."""

    def damage(path, rng):
        with np.load(path) as stored:
            arrays = dict(stored)
        meta = json.loads(str(arrays.pop("meta")))
        change(arrays, meta)
        np.savez_compressed(path, meta=np.array(json.dumps(meta)), **arrays)

    return damage


def flipped(path, rng):
    data = bytearray(path.read_bytes())
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(data))


def other_zip(path, rng):
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("a.txt", "text")


HARMLESS = {
    "an array more": rewritten(lambda arrays, meta: arrays.update(bias=np.ones(3))),
}
DAMAGE = HARMLESS | {
    "flipped bit": flipped,
    "truncated": lambda path, rng: os.truncate(path, int(rng.integers(path.stat().st_size))),
    "empty": lambda path, rng: path.write_bytes(b""),
    "text": lambda path, rng: path.write_text("weights"),
    "npy": lambda path, rng: path.write_bytes(
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }".ljust(136)
    ),
    "other npz": lambda path, rng: np.savez(path, a=np.ones(3)),
    "other zip": other_zip,
    "pickle": lambda path, rng: path.write_bytes(b"\x80\x04K\x01."),
    "objects": lambda path, rng: np.savez(path, meta=np.array({"a": 1}), weights=np.array([None])),
    "a newer version": rewritten(lambda arrays, meta: meta.update(format=99)),
    "a version of text": rewritten(lambda arrays, meta: meta.update(format="two")),
    "negative version": rewritten(lambda arrays, meta: meta.update(format=-1)),
    "an array less": rewritten(lambda arrays, meta: arrays.pop("loss")),
    "x less": rewritten(lambda arrays, meta: arrays.pop("x")),
    "a key less": rewritten(lambda arrays, meta: meta.pop("settings")),
    "names less": rewritten(lambda arrays, meta: meta.pop("feature_names")),
    "a link of another name": rewritten(lambda arrays, meta: meta.update(link="probit")),
    "weights of another shape": rewritten(lambda arrays, meta: arrays.update(weights=np.ones((3, 9)))),
    "weights of fewer instances": rewritten(lambda arrays, meta: arrays.update(weights=np.ones((1, 3)))),
    "an intercept of another shape": rewritten(lambda arrays, meta: arrays.update(intercept=np.ones((3, 2, 2)))),
    "weights of text": rewritten(lambda arrays, meta: arrays.update(weights=np.array([["a"] * 3] * 3))),
    "slopes of another shape": rewritten(lambda arrays, meta: arrays.update(slopes=np.ones((1, 1, 2)))),
    "more names": rewritten(lambda arrays, meta: meta.update(feature_names=["a", "b"])),
    "method a number": rewritten(lambda arrays, meta: meta.update(method=3)),
    "loss of text": rewritten(lambda arrays, meta: meta["method"].update(loss=["a", "b"])),
    "several scores": rewritten(lambda arrays, meta: meta.update(several=True)),
    "text a list": rewritten(lambda arrays, meta: meta.update(settings=[1, 2])),
}
ELSEWHERE = {
    "missing": lambda e, folder: lx.load(folder / "none.npz"),
    "a folder": lambda e, folder: lx.load(folder),
    "a number": lambda e, folder: lx.load(3),
    "None": lambda e, folder: e.save(None),
    "no folder": lambda e, folder: e.save(folder / "a" / "b.npz"),
    "into a folder": lambda e, folder: e.save(folder),
    "empty name": lambda e, folder: e.save(""),
}


def files(chance):
    """Damaged files, other files, places where no file is."""
    x, task = torch.from_numpy(chance.normal(3, 3)), Task(chance, 3)
    e = quick(task, x, lx.c_lime(0.5))
    where = chance.of("where", ["file"] * 6 + ["elsewhere"] * 2 + ["two writers"])
    if where == "two writers":
        return two_writers(chance)
    with tempfile.TemporaryDirectory() as folder:
        path = e.save(Path(folder) / "e")
        if where == "elsewhere":
            call = chance.of("path", ELSEWHERE)
            try:
                return refused(lambda: call(e, Path(folder)))
            except OSError as error:
                if error.filename is None:
                    raise
                return None
            finally:
                left = [p.name for p in Path(folder).iterdir() if p.name != "e.npz"]
                if left:
                    raise Wrong(f"left {left}")
        damage = chance.of("damage", DAMAGE)
        damage(path, chance.rng)
        got = lx.load(path)
        if damage is flipped or damage in HARMLESS.values():
            return same("a flipped bit", got, e, 0.0)
        raise Wrong(f"loaded {got!r}")


def two_writers(chance):
    """Two threads save to one path: the file is one of the two at any time."""
    task = Task(chance, 3)
    both = [quick(task, torch.from_numpy(chance.normal(40, 3)), lx.c_lime(0.5)) for _ in range(2)]
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "e.npz"

        def write(e):
            try:
                for _ in range(6):
                    e.save(path)
                    loaded = lx.load(path)
                    if not any(torch.equal(loaded.weights, one.weights) for one in both):
                        raise Wrong("a torn file")
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

        workers = [threading.Thread(target=write, args=(e,)) for e in both]
        [w.start() for w in workers]
        [w.join() for w in workers]
        left = [p.name for p in Path(folder).iterdir() if p.name != "e.npz"]
    if errors or left:
        raise Wrong(f"{errors[:1]}, left {left}")
