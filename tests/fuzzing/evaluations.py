"""Perturbation tests, faithfulness, recommend, images, names, contexts, and calls that must be refused."""

import itertools
import threading
import time
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import nn

import locapprox as lx
from locapprox._parts import child_seeds
from locapprox.neighbourhoods.base import described

from . import things
from .areas import Plan, compare, explained, paper, refused, untouched
from .around import draws, quick
from .oracle import Wrong, additive, answers, close, multiplicative, surrogate
from .things import NAMES, Net, Task, numbers, truths

F64 = torch.float64


def perturbation(chance):
    """Every count, feature and draw in a loop, one row per call."""
    d = chance.of("d", [1, 3, 6])
    a, task = chance.normal(3, d), Task(chance, d)
    x = torch.from_numpy(a)
    kinds = ("function", "in place", "reuses its output", "module", "training mode", "norm in training", "tree")
    model, truth, *watch = chance.of("model", {k: things.MODELS[k] for k in kinds})(task, x)
    kind = chance.of("kind", ["bottom", "top", "deletion", "insertion"])
    noise = kind in ("bottom", "top") and chance.of("replace", ["baseline", "noise"]) == "noise"
    labels = chance.of("features", [None, "pairs"])
    own = np.arange(d) if labels is None else np.arange(d) // 2
    q = own.max() + 1
    weights = np.round(chance.normal(3, q), chance.of("decimals", [0, 9]))
    base = chance.of("baseline", {"0": 0.0, "vector": a[0] / 2, "background": lx.Background(a / 2 + 1)})
    rows = np.broadcast_to(
        base.rows.numpy() if isinstance(base, lx.Background) else base, (3 if isinstance(base, lx.Background) else 1, d)
    )
    ties, rounds, seed = chance.of("ties", ["average", "argsort"]), 5, chance.of("seed", [0, 7])
    given = chance.of(
        "given", {"array": weights, "tensor": torch.from_numpy(weights), "by name": {"a": weights, "b": -weights}}
    )
    chance.subject = chance.words[1]
    with untouched(x, *watch):
        test = lx.perturbation_test(
            model,
            x,
            given,
            kind=kind,
            replace="noise" if noise else "baseline",
            baseline=base,
            sigma=0.3,
            features=None if labels is None else own,
            draws=rounds,
            ties=ties,
            seed=seed,
        )
    rng = torch.Generator().manual_seed(seed)
    moves = [
        (0.3 * torch.randn(3, d, generator=rng, dtype=F64).numpy(), torch.rand(3, q, generator=rng).argsort(-1).numpy())
        for _ in range(rounds)
    ]
    if ties == "argsort" and len(np.unique(np.abs(weights))) < weights.size:
        return
    start = 0 if kind in ("deletion", "insertion") else 1
    f = truths(truth, lambda i: 0, 1)[0]
    size = weights if start == 0 else np.abs(weights)
    sign = 1 if kind == "bottom" else -1
    right = np.zeros((3, q + 1 - start))
    for (shift, order), i, k in itertools.product(moves, range(3), range(start, q + 1)):
        chosen = sorted(order[i], key=lambda j: sign * size[i, j])[:k]
        hit = np.isin(own, [j for j in range(q) if j not in chosen] if kind == "insertion" else chosen)
        changed = (a[i] + hit * shift[i])[None] if noise else np.where(hit, rows, a[i])
        after = f(changed).mean()
        right[i, k - start] += (after if start == 0 else abs(after - f(a[i : i + 1])[0])) / rounds
    table = test.changes[test.changes["method"] == test.changes["method"].iloc[0]]
    close(test.measure, table[test.measure].to_numpy().reshape(right.shape), right, 1e-7, 1.0)
    test.summary(), test.curves(), test.compare(), repr(test)
    ends = np.ones(right.shape[1])
    if start == 0:
        ends[[0, -1]] = 0.5
    close("auc", test.auc()["auc"].to_numpy()[:3], right @ ends / ends.sum(), 1e-7, 1.0)


def faithful(chance):
    """Mean squared errors over rows, and the least that a line can have."""
    d = chance.of("d", [2, 3])
    a, task = chance.normal(3, d), Task(chance, d)
    x, n = torch.from_numpy(a), 80
    one = paper(chance, a)
    e = quick(task, x, one.method)
    columns = {
        "noise": (lx.Additive(lx.Normal(0.4)), additive),
        "masks": (lx.Multiplicative(lx.FairMasks(), 0.5), multiplicative(np.full((1, d), 0.5))),
        "all": (lx.Multiplicative(lx.AllCoalitions()), multiplicative(np.zeros((1, d)))),
        "nearest": (lx.NearestPoints(a[:1] + chance.normal(30, d), 20), additive),
        "lime tabular": (
            lx.LimeTabular(x.mean(0), torch.full((d,), 2.0), 4.0),
            lambda x, xi: ((x + 2 * xi)[:, None], None),
        ),
    }
    where, place = chance.of("column", columns)
    given = chance.of("given", {"method": one.method, "explanation": e, "array": e.on_input()})
    with untouched(x):
        settings = {
            "n_samples": {**dict.fromkeys((one.method.name, "given"), 60), "here": n},
            "like": one.method,
            "progress": False,
        }
        table = lx.faithfulness(task, x, {one.method.name: given}, {"here": where}, **settings).table
    f = truths(task, lambda i: 0, 1)[0]
    for i in range(3):
        xi, w = draws(described(where), x[i : i + 1], n, 0, "evaluate")
        y = answers(f, place, a[i], xi, False)[0]
        own = e.predict(torch.from_numpy(np.broadcast_to(place(a[i], xi)[0].mean(1), (3, len(xi), d)).copy()))[
            i
        ].numpy()
        gap = y - own
        gap = gap - w @ gap / w.sum()
        close(f"error[{i}]", table["error"][i], w @ gap**2 / w.sum(), 1e-5, 1e-7)
        design = np.hstack([xi, np.ones((len(xi), 1))])
        root = np.sqrt(w)[:, None]
        residual = y - design @ np.linalg.lstsq(root * design, root[:, 0] * y, rcond=None)[0]
        if isinstance(where, lx.Additive):
            right = surrogate(y, None, xi, w)
            close(f"optimum[{i}]", table["optimum"][i], (w @ residual**2 / w.sum() + right["loss"]) / 2, 1e-5, 1e-7)
    if chance.of("and", ["nothing", "nothing", "recommend"]) == "recommend":
        got = lx.recommend(
            task,
            x,
            where,
            methods=[one.method, lx.c_lime(1.0)] if one.method.name != "C-LIME" else [one.method, lx.lime(9.0)],
            n_samples=n,
            replicates=2,
            progress=False,
        )
        runs = [
            lx.faithfulness(task, x, one.method, {"here": where}, n_samples=n, seed=s, progress=False).table
            for s in child_seeds(0, 2)
        ]
        mine = got.table.set_index("method")["error"][one.method.name]
        close("recommend", mine, np.mean([run["error"].mean() for run in runs]), 1e-6)


# ---- names


def names(chance):
    """Columns in another order: aligned by name, or refused."""
    d = 4
    a, task = chance.normal(3, d), Task(chance, d)
    x, order = things.frame(a), chance.rng.permutation(d)
    other = [NAMES[i] for i in order]
    base, data = pd.Series(a[0] / 2 + 1, NAMES[:d]), things.frame(a[:1] + chance.normal(20, d))
    wrong = data.rename(columns={"age": "old"})
    zero = np.full((1, d), 0.0)
    e = quick(task, x, lx.kernel_shap())

    def placed(method, rows, **more):
        one = Plan(method, lambda i: multiplicative(rows), **more)
        got, caught = explained(chance, task, x, one, n_samples=60)
        compare(got, one, a, truths(task, lambda i: 0, 3), 1e-6, caught)

    def nearest():
        got = quick(task, x, lx.Method("near", lx.NearestPoints(data[other], 15), lx.SquaredError()))
        right = quick(task, x, lx.Method("near", lx.NearestPoints(data.to_numpy(), 15), lx.SquaredError()))
        close("weights", got.weights, right.weights, 1e-9)

    def tabular():
        own = (
            lx.Method("t", lx.LimeTabular.of_data(one, 4.0), lx.SquaredError())
            for one in (data[other], data.to_numpy())
        )
        close("weights", *(quick(task, x, one).weights for one in own), 1e-9)

    def correlated():
        own = (
            lx.Method("t", lx.Additive(lx.CorrelatedNormal.of_data(one)), lx.SquaredError())
            for one in (data[other], data.to_numpy())
        )
        close("weights", *(quick(task, x, one).weights for one in own), 1e-9)

    calls = {
        "baseline series": lambda: placed(lx.kernel_shap(base[other]), base.to_numpy()[None]),
        "baseline series in order": lambda: placed(
            lx.lime(9.0, base),
            base.to_numpy()[None],
            kernel=lambda xi, i: np.exp(-(((a[i] - base.to_numpy()) * (1 - xi)) ** 2).sum(-1) / 81),
        ),
        "baseline of other names": lambda: refused(lambda: quick(task, x, lx.occlusion(base.rename({"age": "old"})))),
        "baseline frame": lambda: (
            placed(lx.integrated_gradients(x[other] / 2), zero)
            if False
            else placed(lx.occlusion(things.frame(np.tile(base, (3, 1)))[other]), base.to_numpy()[None])
        ),
        "background": lambda: placed(lx.kernel_shap(lx.Background(data[other])), data.to_numpy()),
        "background of other names": lambda: refused(lambda: quick(task, x, lx.kernel_shap(lx.Background(wrong)))),
        "predict": lambda: close("predict", e.predict(x[other]), e.predict(x), 1e-9),
        "predict of other names": lambda: refused(lambda: e.predict(x.rename(columns={"age": "old"}))),
        "nearest": nearest,
        "nearest of other names": lambda: refused(
            lambda: quick(task, x, lx.Method("near", lx.NearestPoints(wrong, 15), lx.SquaredError()))
        ),
        "lime tabular": tabular,
        "correlated": correlated,
        "perturbation baseline": lambda: close(
            "changes",
            *(lx.perturbation_test(task, x, e, baseline=b).changes["change"] for b in (base[other], base.to_numpy())),
            1e-9,
        ),
        "as_explanation": lambda: close("weights", lx.as_explanation(x[other], x, lx.kernel_shap()).weights, a, 1e-9),
        "perturbation weights": lambda: close(
            "changes",
            *(lx.perturbation_test(task, x, {"a": w}).changes["change"] for w in (x[other], x.to_numpy())),
            1e-9,
        ),
        "target series": lambda: close(
            "weights",
            quick(Task(chance, d, 2), x, lx.occlusion(), target=pd.Series([1, 0, 1])).weights * 0,
            e.weights * 0,
            0,
        ),
        "concat": lambda: refused(lambda: lx.concat([e, quick(task, x[other], lx.kernel_shap())])),
    }
    with untouched(x, data, base):
        chance.of("call", calls)()


# ---- contexts


def contexts(chance):
    """Threads, autocast, grad modes, default dtypes and devices: the numbers are those without."""
    d = chance.of("d", [2, 4])
    kind = chance.of("dtype", [torch.float32, F64])
    a = chance.normal(3, d)
    x = torch.from_numpy(a).to(kind)
    task = Task(chance, d)
    net = Net(task, kind, dropout=0.5)
    one = paper(chance, numbers(x))

    class Cautious(nn.Module):
        """Its own autocast is off."""

        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, a):
            with torch.autocast("cpu", enabled=False):
                return self.net(a)

    def default_dtype(kind):
        def run(call):
            before = torch.get_default_dtype()
            torch.set_default_dtype(kind)
            try:
                return call()
            finally:
                torch.set_default_dtype(before)

        return run

    def inside(context):
        def run(call):
            with context():
                return call()

        return run

    around = {
        "autocast": inside(partial(torch.autocast, "cpu", torch.bfloat16)),
        "no grad": inside(torch.no_grad),
        "inference": inside(torch.inference_mode),
        "anomaly": inside(partial(torch.autograd.set_detect_anomaly, True)),
        "numpy raises": inside(partial(np.errstate, all="raise")),
        "default half": default_dtype(torch.float16),
        "default double": default_dtype(F64),
        "default device": inside(partial(torch.device, "meta")),
    }
    if chance.of("context", ["threads", *["other"] * 7]) == "threads":
        return threads(chance, net, x, one)
    run, model = chance.of("around", around), Cautious()
    e = run(lambda: quick(model, x, one.method))
    right = quick(model, x, one.method)
    for name in ("weights", "standard_error", "loss"):
        close(name, getattr(e, name), getattr(right, name), 1e-9, 1e-9)
    return None


def threads(chance, net, x, one):
    """Threads explain one module in training mode: each gets what a single one gets, and the mode comes back."""

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, a):
            time.sleep(0.0005)
            return self.net(a)

    model, got = Slow(), {}
    right = {n: quick(model.eval(), x, one.method, n_samples=n, batch_size=30).weights for n in (60, 300)}
    model.train()

    def work(i, n):
        try:
            got[i] = n, quick(model, x, one.method, n_samples=n, batch_size=30).weights
        except Exception as error:
            got[i] = n, error

    workers = [threading.Thread(target=work, args=(i, (60, 300)[i % 2])) for i in range(4)]
    [w.start() for w in workers]
    [w.join() for w in workers]
    for n, weights in got.values():
        if isinstance(weights, Exception):
            raise weights
        close("weights", weights, right[n], 1e-6)
    if not all(m.training for m in model.modules()):
        raise Wrong("the training mode is not put back")


# ---- images


def images(chance):
    """Patches, superpixels, channels, pictures, and what comes as an image."""
    c, h, w = chance.of("shape", [(1, 4, 6), (3, 5, 4), (3, 4, 4)])
    a = np.abs(chance.normal(2, c, h, w))
    x, bytes_ = torch.from_numpy(a), (a * 60).clip(0, 255).astype(np.uint8)
    last = bytes_.transpose(0, 2, 3, 1)
    size = chance.of("size", [1, 2, (2, 3), (4, 1)])
    down, across = (size, size) if isinstance(size, int) else size
    per_row = -(-w // across)
    labels = np.array([[i // down * per_row + j // across for j in range(w)] for i in range(h)])
    task = Task(chance, c * h * w)

    def squares():
        close("patches", lx.patches(x.shape[1:], size), labels, 0)

    def channels():
        right = np.stack([labels + k * (labels.max() + 1) for k in range(c)])
        close("per_channel", lx.per_channel(lx.patches(x.shape[1:], size), c), right, 0)

    def weights():
        own = np.tile(labels.ravel(), c)
        kind = chance.of("labels", [torch.int64, torch.int32, torch.uint8, torch.int8, torch.int16])
        where = torch.from_numpy(labels).to(kind)
        one = Plan(lx.occlusion(0.0, where), lambda i: multiplicative(np.zeros((1, c * h * w)), own))
        e, caught = explained(chance, task, x, one)
        compare(e, one, a.reshape(2, -1), truths(task, lambda i: 0, 2), 1e-6, caught)
        close("on_input", e.on_input().reshape(2, -1), e.weights[:, own], 0)

    def segments():
        def halves(image):
            return np.where(np.arange(image.shape[1]) < image.shape[1] // 2, 5, 9) * np.ones((*image.shape[:1], 1), int)

        right = np.broadcast_to(np.arange(w) >= w // 2, (2, 1, h, w))
        close("superpixels", lx.superpixels(x, halves), right.astype(int), 0)

    def converted():
        from PIL import Image

        rgb = [Image.fromarray(one if c == 3 else one[..., 0]) for one in last]
        kinds = {
            "bytes": (bytes_, a * 0 + bytes_ / 255),
            "byte tensor": (torch.from_numpy(bytes_), bytes_ / 255),
            "floats": (a, a),
            "pictures": (rgb, bytes_ / 255),
            "arrays": (list(last), bytes_ / 255),
            "palettes": ([one.convert("P") for one in rgb], None),
            "16 bit": ([Image.fromarray(bytes_[0, 0].astype(np.uint16) * 257)], bytes_[:1, :1] / 255),
            "uint16": (bytes_.astype(np.uint16) * 257, bytes_ / 255),
            "int64 to 255": (bytes_.astype(np.int64), bytes_ / 255),
            "Boolean": (bytes_ > 60, (bytes_ > 60) * 1.0),
            "one bit": ([one.convert("1") for one in rgb], None),
            "with alpha": ([one.convert("RGBA") for one in rgb], None),
            "tensors": (
                [torch.from_numpy(np.resize(a, (3, 8, 8)))] * 2,
                np.broadcast_to(np.resize(a, (3, 8, 8)), (2, 3, 8, 8)),
            ),
            "mixed": ([last[0], last[1] / 255], bytes_[:2] / 255),
            "of two sizes": ([last[0], last[1][:-1]], None),
            "list of lists": (last.tolist(), bytes_ / 255),
            "of negative strides": (a[:, :, ::-1], a[:, :, ::-1]),
            "text": (["a.png"], None),
            "number": (3, None),
            "None": (None, None),
            "NaN": (a * np.nan, a * np.nan),
        }
        given, right = chance.of("images", kinds)
        if right is None and chance.words[-1] in ("images=palettes", "images=one bit", "images=with alpha"):
            right = (
                np.stack(
                    [
                        np.asarray(one.convert("RGB" if c == 3 and one.mode != "1" else "L"), float).reshape(h, w, -1)
                        for one in given
                    ]
                ).transpose(0, 3, 1, 2)
                / 255
            )
            got = lx.as_images(given)
            return (
                close("as_images", got[:, :c], right, 1e-6) if len(got[0]) >= c else close("as_images", got, right, 0)
            )
        return (
            close("as_images", lx.as_images(given), right, 1e-6)
            if right is not None
            else refused(lambda: lx.as_images(given))
        )

    def drawn():
        e = quick(task, x, lx.vanilla_gradients())
        maps = chance.of(
            "maps", {"explanation": e, "tensor": e.weights, "array": e.weights.numpy(), "sum": e.weights.sum(1)}
        )
        given = chance.of("as", {"tensor": x, "array": a})
        figure = lx.pictures(given, {"a": maps}, names=chance.of("names", [None, ["p", "q"]]))
        shown = np.asarray(figure.axes[1].images[0].get_array())
        close("picture", shown, e.weights[0].sum(0), 1e-9)
        plt.close(figure)
        ax = lx.picture(
            e.weights[1], chance.of("image", {"none": None, "tensor": x[1], "array": a[1]}), sign="positive"
        )
        close("picture", np.asarray(ax.images[-1].get_array()), e.weights[1].sum(0).clamp_min(0), 1e-9)
        plt.close("all")

    def blurred():
        kind = chance.of("dtype", [F64, torch.float32, torch.float16, torch.bfloat16])
        b = lx.Blurred(1.0)(x.to(kind))
        from scipy.ndimage import gaussian_filter

        close("Blurred", b, np.stack([[gaussian_filter(ch, 1.0, mode="reflect") for ch in one] for one in a]), 3e-2)
        close("ChannelMean", lx.ChannelMean()(x), np.broadcast_to(a.mean((2, 3), keepdims=True), a.shape), 1e-9)

    def mean_of_superpixels():
        own = torch.stack([torch.from_numpy(labels), torch.from_numpy(labels).flip(1)])[:, None]
        if not torch.equal(own[0], own[1]):
            refused(lambda: lx.explain_mean(task, x, lx.occlusion(0.0, own), replicates=2, progress=False))

    def classified():
        model = classifier(chance.of("processor", ["usual", "no normalisation", "rescales to 2"]))
        kind = chance.of("pictures", {"bytes": list(last), "floats": [one / 255 for one in last]})
        if c == 3:
            got = model.images(kind)
            close("images", got, bytes_ / 255, 1e-6)

    calls = (
        squares,
        channels,
        weights,
        segments,
        converted,
        converted,
        drawn,
        blurred,
        mean_of_superpixels,
        classified,
    )
    with untouched(x):
        chance.of("what", {call.__name__: call for call in calls})()


def classifier(kind):
    """With the interface of a transformers processor: bytes are rescaled, whatever they are."""

    class Processor:
        do_normalize = kind != "no normalisation"
        image_mean, image_std = [0.5] * 3, [0.5] * 3
        do_rescale, rescale_factor = True, 1 / 127.5 if kind == "rescales to 2" else 1 / 255

        def __call__(self, pictures, do_normalize, return_tensors, **more):
            factor = more.get("rescale_factor", self.rescale_factor) if more.get("do_rescale", True) else 1.0
            rows = [np.asarray(p, float).transpose(2, 0, 1) * factor for p in pictures]
            return {"pixel_values": torch.from_numpy(np.stack(rows)).float()}

    return lx.ImageClassifier(nn.Identity(), Processor())
