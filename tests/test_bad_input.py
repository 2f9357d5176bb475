"""Bad input never becomes a result: every mistake has its sentence, and the model is left as it was.

The library is imported here a second time without the shape checks of the other tests: as a user's mistakes meet it.
"""

import itertools
import re
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import nn

F64 = torch.float64


def as_a_user_imports_it():
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "locapprox"}
    finders = list(sys.meta_path)
    sys.meta_path[:] = [f for f in finders if not type(f).__module__.startswith("jaxtyping")]
    try:
        import locapprox

        return locapprox
    finally:
        sys.meta_path[:] = finders
        for name in [name for name in sys.modules if name.split(".")[0] == "locapprox"]:
            del sys.modules[name]
        sys.modules.update(kept)


lx = as_a_user_imports_it()
X = torch.randn(3, 6, generator=torch.Generator().manual_seed(4), dtype=F64)
COLUMNS = ["age", "income", "debt", "rate", "term", "score"]
FRAME = pd.DataFrame(X.numpy(), columns=COLUMNS)
HOLES = X.clone()
HOLES[1, 2], HOLES[0, 4] = torch.nan, torch.inf
MASKED = np.ma.masked_array(np.arange(6), [1, 0, 0, 0, 0, 0])


def network(outputs=1, dtype=F64, dropout=False):
    rng = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5 if dropout else 0.0), nn.Tanh(), nn.Linear(8, outputs))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng))
    return net.to(dtype)


def total(a):
    return a.sum(1)


def nested():
    return torch.nested.nested_tensor([X[0], X[1, :3]], layout=torch.jagged)


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(X.float(), 0.1, 0, torch.qint8)


class Calls:
    """A model that fails, as `error`, on more than ten rows."""

    def __init__(self, error):
        self.error = error

    def __call__(self, a):
        if len(a) > 10:
            raise self.error
        return a.sum(1)


def squares(neighbourhood, surrogate=None):
    return lx.Method("own", neighbourhood, lx.SquaredError(), surrogate or lx.Linear())


def gradients(neighbourhood):
    return lx.Method("own", neighbourhood, lx.GradientMatching())


def masks(surrogate=None, **settings):
    return squares(lx.Multiplicative(lx.ShapleyMasks(), **settings), surrogate)


class Drawn:
    """A user's neighbourhood with mistakes."""

    def __init__(self, xi=None, weight=None, placed=None, drawn=None):
        self.xi, self.weight, self.placed, self.drawn = xi, weight, placed, drawn

    def draw(self, x, n, rng):
        xi = torch.randn(n, x[0].numel(), generator=rng, dtype=x.dtype)
        xi = xi if self.xi is None else self.xi(xi)
        draw = lx.Draw(xi, torch.ones(len(xi), dtype=F64) if self.weight is None else self.weight(xi))
        return draw if self.drawn is None else self.drawn(draw)

    def place(self, x, xi):
        placed = x[:, None] + xi
        return placed if self.placed is None else self.placed(placed)


class Fitted:
    """A user's surrogate that returns the wrong thing."""

    def fit(self, sample, loss):
        return {"weights": sample.x}


def given(values=X, x=X, like=None, **settings):
    """A call of as_explanation, not yet made."""
    return lambda: lx.as_explanation(values, x, like or lx.smoothgrad(), **settings)


def asks(function):
    """A call of an Explainer, not yet made."""
    return lambda: lx.Explainer("mine", function)(network().eval(), X)


def explains(method=None, model=None, x=X, **settings):
    """A call of explain, not yet made."""
    settings = {"n_samples": 64} | settings
    return lambda: lx.explain(model or network().eval(), x, method or lx.kernel_shap(), **settings)


def done():
    return lx.explain(network().eval(), X, lx.kernel_shap(), n_samples=64)


V, T, M, G = ValueError, TypeError, MemoryError, lx.models.scores.NoGradientError
BROKEN = lx.neighbourhoods.contract.ContractError
AT_LEAST_1 = r"^{} must be a whole number ≥ 1, got {}$"
BLACK_BOX = r"needs the model's gradients, and {}\. Two ways out: .*c_lime\(sigma\).* or pass a differentiable model"

CASES = {
    # x
    "no batch axis": (explains(x=X[0]), V, r"^x needs a batch axis first: got shape \(6,\); pass x\[None\]"),
    "a number": (explains(x=torch.tensor(1.0)), V, "x needs a batch axis first"),
    "rank": (explains(x=X[None]), V, r"one row of scores per input: 64 inputs gave shape \(64, 3, 1\)"),
    "empty": (explains(x=X[:0]), V, r"^x is empty: shape \(0, 6\)$"),
    "empty frame": (explains(x=FRAME[:0]), V, r"^x is empty: shape \(0, 6\)$"),
    "no features": (explains(x=X[:, :0]), V, "^x is empty"),
    "strings": (explains(x=np.array([["a", "b"]])), T, r"^x must hold numbers, got an array of dtype <U1; encode"),
    "objects": (explains(x=np.array([["a", 1.0]], dtype=object)), T, r"of dtype object; .*x\.astype\(float\)"),
    "text column": (explains(x=FRAME.assign(debt="high")), T, "^x has columns that are not numbers: debt; encode them"),
    "dates": (explains(x=FRAME.assign(age=pd.Timestamp(0))), T, "not numbers: age;"),
    "complex": (explains(x=X.to(torch.complex64)), T, "^x must hold real numbers, got complex ones"),
    "list": (explains(x=X.tolist()), T, "^x must be a tensor, an array or a DataFrame, got list$"),
    "text": (explains(x="hello"), T, "^x must be a tensor, an array or a DataFrame, got str$"),
    "series": (explains(x=FRAME["age"]), T, "got Series$"),
    "column names twice": (
        explains(x=FRAME.rename(columns={"debt": "age"})),
        V,
        "^x has several columns of the same name: age; rename them$",
    ),
    "precision": (explains(x=X.float()), V, r"failed on rows of shape \(192, 6\) and torch\.float32: .*dtype"),
    "masked": (explains(x=np.ma.masked_array(X, X > 0)), V, "^x is a masked array with masked entries: fill them in"),
    "sparse": (explains(x=X.to_sparse()), T, r"^x is a tensor that is sparse: use \.to_dense\(\)$"),
    "rows of sparse": (explains(x=X.to_sparse_csr()), T, "^x is .* sparse"),
    "nested": (lambda: explains(x=nested())(), T, "^x is a tensor that is nested: pad its rows to one shape$"),
    "quantised": (lambda: explains(x=quantised())(), T, r"^x is a tensor that is quantised: use \.dequantize\(\)$"),
    "without values": (explains(x=X.to("meta")), T, '^x is a tensor that is without values, on the device "meta"$'),
    "names twice as text": (
        explains(model=total, x=FRAME.set_axis([1, "1", *COLUMNS[2:]], axis=1)),
        V,
        "^x has several columns of the same name: 1; rename them$",
    ),
    # NaN and infinity
    "NaN in an array": (explains(lx.c_lime(), x=HOLES), V, r"^x has NaN or infinite values in feature\(s\) 2, 4; fill"),
    "NaN in a frame": (
        explains(lx.smoothgrad(), total, pd.DataFrame(HOLES.numpy(), columns=COLUMNS)),
        V,
        r"in feature\(s\) debt, term; fill them in first$",
    ),
    "NaN in an image": (
        explains(lx.c_lime(), total, HOLES.reshape(3, 2, 3)),
        V,
        r"in feature\(s\) \(0, 2\), \(1, 1\);",
    ),
    "NaN everywhere": (explains(lx.c_lime(), x=X * torch.nan), V, r"in feature\(s\) 0, 1, 2, 3, 4 …;"),
    "NaN for the model": (
        explains(model=lambda a: a.sum(axis=1, skipna=False), x=pd.DataFrame(HOLES.numpy(), columns=COLUMNS)),
        V,
        r"the model returned NaN or infinite values .*: x has such values in feature\(s\) debt, term, which this model",
    ),
    "NaN and a distance": (
        explains(lx.lime(), lambda a: torch.nan_to_num(a).clamp(-9, 9).sum(1), HOLES),
        V,
        r'the kernel has no distance in x: use measured_in="xi"',
    ),
    # the model
    "no model": (
        explains(model="net"),
        T,
        r"^model must be a torch\.nn\.Module, an estimator .*, or callable; got 'net'",
    ),
    "a class": (explains(model=nn.Linear), T, "^model must be an object, got the class Linear"),
    "another width": (
        explains(model=nn.Linear(5, 1).double().eval()),
        V,
        r"^the model failed on rows of shape \(192, 6\) and torch\.float64: RuntimeError: mat1 and mat2",
    ),
    "estimator of another width": (
        explains(model=HistGradientBoostingRegressor().fit(np.eye(9), np.arange(9.0)), x=X.numpy()),
        V,
        "expecting 9 features",
    ),
    "too short": (
        explains(model=lambda a: a[:1].sum(1)),
        V,
        r"one row of scores per input: 192 inputs gave shape \(1, 1\)",
    ),
    "one number": (explains(model=lambda a: a.sum()), V, r"one row of scores per input: 192 inputs gave shape \(\)"),
    "three axes": (explains(model=lambda a: a[:, :, None]), V, r"gave shape \(192, 6, 1\)"),
    "nothing": (
        explains(model=lambda a: None),
        T,
        "must return real numbers, one row per input; it returned NoneType. Wrap",
    ),
    "labels": (explains(model=lambda a: ["yes"] * len(a)), T, "must return real numbers, .* it returned list"),
    "a dict": (explains(model=lambda a: {"logits": a}), T, "must return real numbers, .* it returned dict"),
    "complex output": (
        explains(model=lambda a: a.sum(1) + 0j),
        T,
        "the model's result must hold real numbers, got complex",
    ),
    "masked output": (
        explains(model=lambda a: np.ma.masked_array(a[:, 0], a[:, 0] > 0), x=X.numpy()),
        V,
        "^the model's result is a masked array with masked entries: fill them in",
    ),
    "sparse output": (
        explains(model=lambda a: a.sum(1).to_sparse()),
        T,
        "^the model's result is .* sparse",
    ),
    "nested output": (explains(model=lambda a: nested()), T, "^the model's result is a tensor that is nested"),
    "quantised output": (explains(model=lambda a: quantised()), T, "^the model's result is a tensor that is quantised"),
    "output without values": (
        explains(model=lambda a: total(a).to("meta")),
        T,
        "^the model's result is .* without",
    ),
    "complex array": (
        explains(model=lambda a: a.sum(1) + 0j, x=X.numpy()),
        T,
        "^the model must return real numbers, one row per input; it returned ndarray of complex128. Wrap it",
    ),
    "a tuple": (
        explains(model=lambda a: (a.sum(1), a)),
        T,
        "^the model must return .*; it returned tuple",
    ),
    "NaN output": (
        explains(model=lambda a: a.sum(1) * torch.nan),
        V,
        "NaN or infinite values near the explained inputs$",
    ),
    "infinite nearby": (
        explains(lx.c_lime(9.0), lambda a: (a[:, 0] + 5).log()),
        V,
        "the model returned NaN or infinite values near the explained inputs$",
    ),
    "dropout left on": (
        explains(model=lambda a: torch.nn.functional.dropout(a, 0.5).sum(1)),
        V,
        "output for a row changes from call to call or with the rows beside it .dropout left on",
    ),
    "error inside": (
        explains(model=Calls(KeyError("age"))),
        V,
        r"^the model failed on rows of shape \(192, 6\) and torch\.float64: KeyError: 'age'$",
    ),
    "out of GPU memory": (
        explains(model=Calls(torch.OutOfMemoryError("CUDA out of memory"))),
        M,
        "^out of memory on 192 rows: lower batch_size below that$",
    ),
    "out of CPU memory": (
        explains(model=Calls(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"))),
        M,
        "lower batch_size",
    ),
    "out of Python memory": (explains(model=Calls(MemoryError())), M, "lower batch_size"),
    # target
    "several outputs": (
        explains(model=network(3).eval()),
        V,
        r"^the model has 3 outputs: choose with target=0 … 2, one int per instance, range\(3\) for all, or a function",
    ),
    **{
        f"target {target}": (explains(model=network(3).eval(), target=target), kind, match)
        for target, kind, match in [
            (3, V, "^target is out of range: the model's outputs are 0 … 2, got 3$"),
            (-1, V, "^target is out of range: .*got -1$"),
            ((0, 1, 3), V, "^target is out of range"),
            (range(5), V, r"^target is out of range: .*got range\(0, 5\)$"),
            (range(0), T, "^target must be None, int.s., a range or a function"),
            ((), T, "^target must be None, int.s., a range or a function"),
            (1.0, T, "^target must be None, int.s., a range or a function, got 1.0$"),
            ((0.0, 1.0, 2.0), T, "^target must be None, int.s., a range or a function"),
            (True, T, "^target must be None, int.s., a range or a function"),
            ("1", T, "^target must be None, int.s., a range or a function, got '1'$"),
            (
                (0, 1),
                V,
                r"^target has shape \(2,\), expected one int per instance \(3\); for several outputs .* a range$",
            ),
        ]
    },
    "target of too many": (
        explains(model=network(3).eval(), target=lambda out: out),
        V,
        "^target must give one score per row, it gave 3; for all outputs use a range$",
    ),
    **{
        f"target that returns {name}": (explains(target=target), kind, match)
        for name, target, kind, match in [
            ("nothing", lambda out: None, T, "^target must return real numbers, .*; it returned NoneType"),
            ("text", lambda out: ["a"] * len(out), T, "^target must return real numbers, .*; it returned list"),
            (
                "NaN",
                lambda out: out * torch.nan,
                V,
                "^target returned NaN or infinite values near",
            ),
            ("too few", lambda out: out[:1], V, "^target must return one row of scores per input: 192 inputs gave"),
            ("masks", lambda out: np.ma.masked_less(out.numpy(), 1e9), V, "^target's result is a masked array"),
            ("complex numbers", lambda out: out * 1j, T, "^target's result must hold real numbers, got complex ones$"),
        ]
    },
    "masked target": (
        explains(model=network(3).eval(), target=np.ma.masked_array([0, 1, 2], [1, 0, 0])),
        V,
        "^target is a masked array with masked entries",
    ),
    "target that fails": (
        explains(model=network(3).eval(), target=lambda out: out[:, 7]),
        V,
        "^target failed on the model's outputs: IndexError: index 7",
    ),
    # numbers
    **{
        f"{name} {value!r}": (explains(**{name: value}), V, AT_LEAST_1.format(name, re.escape(repr(value))))
        for name, value in itertools.product(("n_samples", "batch_size"), (0, -1, 2.5, "10", True))
    },
    **{
        f"seed {value!r}": (explains(seed=value), V, f"^seed must be a whole number ≥ 0, got {value!r}$")
        for value in (-1, 1.5, None)
    },
    **{
        f"sigma {value}": (
            lambda value=value: lx.c_lime(value),
            V,
            "^sigma must be positive and finite, got .*vanilla_",
        )
        for value in (0, -0.1, float("nan"), float("inf"), (0.1, 0.0))
    },
    "sigma as text": (
        lambda: lx.smoothgrad("0.1"),
        T,
        "^sigma must be a number, or one per entry of the input; got '0.1'",
    ),
    "no sigma": (lambda: lx.smoothgrad(None), T, "^sigma must be a number"),
    "length of sigma": (
        explains(lx.c_lime(torch.full((5,), 0.1))),
        V,
        "^sigma has 5 entries, the input has 6: give one number or one per entry$",
    ),
    **{
        f"width {value!r}": (
            lambda value=value: lx.lime(width=value),
            V,
            "^width must be positive, one number, or None to ",
        )
        for value in (0, -1.0, float("nan"), "1")
    },
    "one sample, KernelSHAP": (
        explains(n_samples=1),
        V,
        "^n_samples is too small.*determine 0 of the 5 weights; draw more",
    ),
    "one sample, antithetic": (
        explains(squares(lx.Additive(lx.Normal(0.1, antithetic=True))), n_samples=1),
        V,
        "^n_samples=1 gives no draw here",
    ),
    "one sample, antithetic gradients": (
        explains(gradients(lx.Additive(lx.Normal(0.1, antithetic=True))), n_samples=1),
        V,
        "^n_samples=1 gives no draw here",
    ),
    # features and baselines
    "labels that skip": (
        explains(masks(features=[0, 0, 1, 1, 3, 3])),
        V,
        "every label 0 … d − 1: 3 comes where 2 should$",
    ),
    "labels from 1": (
        explains(masks(features=[1, 1, 2, 2, 3, 3])),
        V,
        "every label 0 … d − 1: 1 comes where 0 should$",
    ),
    "negative labels": (
        explains(masks(features=[0, 0, 1, 1, -1, 2])),
        V,
        "every label 0 … d − 1: -1 comes where 0 should",
    ),
    "five labels": (
        explains(masks(features=[0, 0, 1, 1, 2])),
        V,
        r"^features has shape \(5,\); it must label the entries of an input, \(6,\), or have one labelling per",
    ),
    "labels of two": (explains(masks(features=torch.zeros(2, 6).long())), V, "^features labels 2 instances, x has 3$"),
    "labels that are floats": (
        explains(masks(features=[0.0, 0, 1, 1, 2, 2])),
        V,
        "^features must be whole numbers, a label",
    ),
    "labels with a hole": (explains(masks(features=[0, 0, 1, 1, 2, torch.nan])), V, "^features must be whole numbers"),
    "negative bytes": (
        explains(masks(features=np.array([0, 0, 1, 1, -1, 2], np.int8))),
        V,
        "every label 0 … d − 1: -1 comes where 0 should",
    ),
    "labels that are bools": (explains(masks(features=[True] * 6)), V, "^features must be whole numbers"),
    "labels that are names": (lambda: masks(features=COLUMNS), T, r"^features must hold numbers, got \['age'"),
    **{
        f"masked {name}": (call, V, f"^{name} is a masked array with masked entries: fill them in, by .filled")
        for name, call in [
            ("features", lambda: masks(features=MASKED)),
            ("baseline", lambda: masks(baseline=MASKED)),
            ("Background", lambda: lx.Background(MASKED[None])),
            ("sigma", lambda: lx.c_lime(MASKED)),
            ("data", lambda: lx.NearestPoints(MASKED[None], 1)),
            ("mean", lambda: lx.LimeTabular(MASKED, 1.0)),
            ("covariance", lambda: lx.CorrelatedNormal(MASKED)),
            ("values", given(np.ma.masked_array(X, X > 0))),
            ("inputs", lambda: done().predict(np.ma.masked_array(X, X > 0))),
        ]
    },
    **{
        f"complex {name}": (call, T, f"^{name} must hold real numbers, got complex ones$")
        for name, call in [
            ("features", lambda: masks(features=np.array([0, 1j]))),
            ("baseline", lambda: masks(baseline=1j)),
            ("Background", lambda: lx.Background(X * 1j)),
            ("values", given(X * 1j)),
            ("inputs", lambda: done().predict(X * 1j)),
        ]
    },
    "rows of a baseline that differ": (
        lambda: masks(baseline=[[1.0], [1.0, 2.0]]),
        T,
        "^baseline must hold numbers in rows of equal length, got list$",
    ),
    "baseline of another shape": (
        explains(masks(baseline=torch.zeros(5))),
        V,
        r"^baseline must be a number, one input of shape \(6,\), one per instance, \(3, 6\), .*got shape \(5,\)$",
    ),
    "sample that does not say so": (
        explains(masks(baseline=torch.zeros(2, 6))),
        V,
        r"^baseline must .* or lx\.Background\(rows\) to average over a sample of inputs; got shape \(2, 6\)$",
    ),
    "no rows of a sample": (explains(masks(baseline=X[:0])), V, r"^baseline must .*got shape \(0, 6\)$"),
    "sample of another shape": (
        explains(masks(baseline=lx.Background(torch.zeros(2, 5)))),
        V,
        r"^baseline: Background has rows of shape \(5,\), an input is \(6,\)$",
    ),
    "sample of one row": (
        lambda: lx.Background(torch.zeros(6)),
        V,
        r"^Background needs rows, \(m, \*input shape\); got shape \(6,\)$",
    ),
    "sample as text": (lambda: lx.Background("train"), T, "^Background must hold numbers, got 'train'$"),
    "empty sample": (explains(masks(baseline=lx.Background(X[:0]))), V, "^baseline is empty$"),
    "sample with holes": (explains(masks(baseline=lx.Background(HOLES))), V, "^baseline has NaN or infinite values$"),
    "baseline of the batch": (
        explains(masks(baseline=lambda x: x - x.mean(0))),
        V,
        r"^baseline\(x\) must be the same each time, and for an instance alone as among others$",
    ),
    "NaN baseline": (explains(masks(baseline=HOLES[1])), V, "^baseline has NaN or infinite values$"),
    "baseline as text": (lambda: masks(baseline="mean"), T, "^baseline must hold numbers, got 'mean'$"),
    "no baseline": (lambda: masks(baseline=None), T, "^baseline must hold numbers, got None$"),
    "baseline of one": (
        explains(masks(baseline=lambda x: x[0])),
        V,
        r"^baseline\(x\) must have x's shape \(3, 6\), got \(6,\)",
    ),
    "baseline of an array": (
        explains(masks(baseline=lambda x: x.numpy())),
        T,
        r"^baseline\(x\) must be a tensor, got ndarray",
    ),
    # parts
    "no method": (explains("lime"), T, r"^method must be a Method such as lx\.lime\(\), got 'lime'$"),
    "a method not called": (explains(lx.lime), T, r"^method must be a Method such as lx\.lime\(\), got <function lime"),
    "no neighbourhood": (
        lambda: squares(lx.Normal(0.1)),
        T,
        "^neighbourhood must have draw and place; Normal.* lacks place$",
    ),
    "a class of neighbourhoods": (lambda: squares(lx.Additive), T, r"got the class Additive: write Additive\(…\)$"),
    "no distribution": (
        lambda: lx.Additive(0.1),
        T,
        r"^distribution must have a method draw, like lx\.Normal\(0\.1\); got 0",
    ),
    "no kernel": (lambda: lx.Additive(lx.Normal(0.1), kernel=2.0), T, r"^kernel must be None or lx\.ExponentialKernel"),
    "no loss": (
        lambda: lx.Method("", lx.Additive(lx.Normal(0.1)), "mse"),
        T,
        r"^loss must be SquaredError\(\), .*got 'mse'$",
    ),
    "no surrogate": (
        lambda: squares(lx.Additive(lx.Normal(0.1)), "ridge"),
        T,
        "^surrogate must have a method fit.*'ridge'$",
    ),
    "a draw that is none": (
        explains(squares(Drawn(drawn=lambda draw: (draw.xi, draw.weight)))),
        BROKEN,
        r"^the neighbourhood Drawn breaks its contract: Drawn\.draw must return lx\.Draw\(xi, weight\), got tuple$",
    ),
    "a draw of whole numbers": (
        lambda: lx.Draw(torch.ones(3, 2, dtype=torch.long), torch.ones(3)),
        V,
        r"^a draw's xi must be floating numbers \(n, d\) or \(b, n, d\), got torch.int64, \(3, 2\)$",
    ),
    "a draw of lists": (lambda: lx.Draw([[1.0]], torch.ones(1)), T, "^a draw's xi must be a tensor, got list$"),
    "a draw with another rule's weights": (
        lambda: lx.Draw(torch.ones(3, 2), torch.ones(3), coarse_weight=torch.ones(2)),
        V,
        r"^a draw of 3 rows needs coarse_weight \(n,\) or \(r, n\), got \(2,\)$",
    ),
    "a fit that is none": (
        explains(squares(lx.Additive(lx.Normal(0.1)), Fitted())),
        BROKEN,
        r"^the surrogate Fitted breaks its contract: fit must return an lx\.Fit, got dict$",
    ),
    "weights of other rows": (
        explains(squares(Drawn(weight=lambda xi: xi[:5, 0].square()))),
        BROKEN,
        r"a draw of 16 rows needs weight \(n,\) or \(b, n\), got \(5,\)$",
    ),
    "a neighbourhood to check": (
        lambda: lx.check_neighbourhood(lx.Normal(0.1), X),
        BROKEN,
        "^the neighbourhood breaks its contract: a neighbourhood needs a method place$",
    ),
    "a distribution to check": (
        lambda: lx.check_distribution(0.1),
        BROKEN,
        "^the distribution breaks its contract: a distribution needs a method draw$",
    ),
    "a surrogate to check": (
        lambda: lx.check_surrogate(lx.SquaredError()),
        BROKEN,
        "^the surrogate breaks its contract: a surrogate needs a method fit$",
    ),
    "negative loss": (lambda: -1 * lx.SquaredError(), V, "^a loss needs finite weights ≥ 0, not both 0; got -1"),
    "NaN loss": (lambda: float("nan") * lx.SquaredError(), V, "^a loss needs finite weights"),
    "weights zero": (
        explains(squares(Drawn(weight=lambda xi: 0 * xi[:, 0]))),
        V,
        "effective sample size of 0 for 7 weights",
    ),
    "weights zero, gradients": (
        explains(gradients(Drawn(weight=lambda xi: 0 * xi[:, 0]))),
        V,
        "effective sample size of 0",
    ),
    "weights negative": (
        explains(squares(Drawn(weight=lambda xi: -1 + 0 * xi[:, 0]))),
        BROKEN,
        "weights must not be negative or NaN",
    ),
    "no rows": (explains(squares(Drawn(xi=lambda xi: xi[:0]))), V, "gives no draw here"),
    "a place of one instance": (
        explains(squares(Drawn(placed=lambda placed: placed[:1]))),
        BROKEN,
        r"Drawn\.place must return an input for every row of ξ, \(2, 4, 6\), got \(1, 4, 6\)$",
    ),
    "a place of another shape": (
        explains(gradients(Drawn(placed=lambda placed: placed[..., :5]))),
        BROKEN,
        r"Drawn\.place must return an input for every row of ξ, \(2, 4, 6\), got \(2, 4, 5\)$",
    ),
    "rows that cannot be met": (
        explains(masks(lx.Linear(intercept=False))),
        V,
        r"infinite weight cannot all be interpolated .*use Linear\(intercept=True\)",
    ),
    "covariance of another shape": (
        explains(squares(lx.Additive(lx.CorrelatedNormal(torch.eye(5))))),
        V,
        r"^covariance must be \(6, 6\) for inputs of 6 entries, got \(5, 5\)$",
    ),
    "covariance that is none": (
        explains(squares(lx.Additive(lx.CorrelatedNormal(-torch.eye(6))))),
        V,
        "positive definite",
    ),
    "too many neighbours": (
        lambda: lx.NearestPoints(X, 4),
        V,
        "^k must be between 1 and the number of points, 3; got 4$",
    ),
    "half a neighbour": (lambda: lx.NearestPoints(X, 1.5), V, "^k must be a whole number ≥ 1, got 1.5$"),
    "data of another shape": (
        explains(squares(lx.NearestPoints(X[:, :5], 3))),
        V,
        r"^data has inputs of shape \(5,\), x \(6,\)",
    ),
    "data with holes": (explains(squares(lx.NearestPoints(HOLES, 3))), V, "^data has NaN or infinite values"),
    "tabular width": (lambda: lx.LimeTabular(X[0], X[0].abs(), -1.0), V, "^width must be positive"),
    "tabular scale": (lambda: lx.LimeTabular(X[0], 0 * X[0]), V, "^scale must be positive in every feature"),
    "tabular mean": (
        explains(squares(lx.LimeTabular(X[0, :5], X[0].abs(), 6.0))),
        V,
        r"^mean has shape \(5,\), an input has",
    ),
    "tabular width as text": (
        lambda: lx.LimeTabular(X[0], 1.0, "3"),
        V,
        "^width must be .*; got '3'$",
    ),
    "tabular flag": (
        lambda: lx.LimeTabular(X[0], 1.0, 3.0, "yes"),
        T,
        "^around_instance must be True or False",
    ),
    "tabular mean with holes": (lambda: lx.LimeTabular(HOLES[1], 1.0), V, "^mean has NaN or infinite values$"),
    "tabular scale with holes": (lambda: lx.LimeTabular(0.0, HOLES[1]), V, "^scale has NaN or infinite values$"),
    "tabular data with holes": (lambda: lx.LimeTabular.of_data(HOLES), V, "^data has NaN or infinite"),
    "tabular data of no rows": (
        lambda: lx.LimeTabular.of_data(X[:0]),
        V,
        r"^data must be \(points, .*\(0, 6\)$",
    ),
    "tabular data as a list": (
        lambda: lx.LimeTabular.of_data(X.tolist()),
        T,
        "^data must be a tensor, an array",
    ),
    "covariance with holes": (
        lambda: lx.CorrelatedNormal(HOLES.mT @ HOLES),
        V,
        "^covariance has NaN or infinite",
    ),
    "covariance of data with holes": (
        lambda: lx.CorrelatedNormal.of_data(HOLES),
        V,
        "^data has NaN or infinite values",
    ),
    "covariance of few rows": (
        lambda: lx.CorrelatedNormal.of_data(X),
        V,
        "^data has 3 rows for 6 entries; a covariance needs more rows$",
    ),
    "too many coalitions": (
        explains(squares(lx.Multiplicative(lx.AllCoalitions())), total, torch.ones(1, 30)),
        V,
        r"2\*\*30",
    ),
    # gradients of a black box
    "arrays": (explains(lx.smoothgrad(), total, X.numpy()), G, BLACK_BOX.format("this model is called with arrays")),
    "trees": (
        explains(lx.integrated_gradients(), HistGradientBoostingRegressor().fit(X.numpy(), [0, 1, 2]), X.numpy()),
        G,
        BLACK_BOX.format("this model is called with arrays"),
    ),
    "steps": (
        explains(lx.vanilla_gradients(), lambda a: (a > 0).sum(1) * 1.0),
        G,
        BLACK_BOX.format("its output does not .*"),
    ),
    "through numpy": (
        explains(lx.smoothgrad(), lambda a: torch.from_numpy(a.numpy().sum(1))),
        G,
        BLACK_BOX.format("this model leaves torch on its way"),
    ),
    # afterwards
    "level": (lambda: done().interval(95), V, "^level must be between 0 and 1, got 95$"),
    "level as text": (lambda: done().interval("0.95"), V, "^level must be between 0 and 1, got '0.95'$"),
    "no validation": (lambda: done().validate(0), V, "^n must be a whole number ≥ 1, got 0$"),
    "seed of validation": (lambda: done().validate(10, seed=-1), V, "^seed must be a whole number ≥ 0, got -1$"),
    "inputs to predict": (lambda: done().predict(X[:2]), V, r"^inputs must be \(3, 6\) or \(3, n, 6\).*got \(2, 6\)$"),
    "instance": (lambda: done().points(3), V, "^instance must be below 3, the number of instances; got 3$"),
    "two indices": (lambda: done()[0, 1], T, r"^an explanation is indexed by instances alone, got \(0, 1\)"),
    "no instance": (lambda: done()[3], IndexError, "out of bounds"),
    "nothing to join": (lambda: lx.concat([]), V, "^explanations is empty$"),
    "other's numbers": (
        given(X[:, :5]),
        V,
        r"^values have shape \(3, 5\), x \(3, 6\): give maps of x's shape, or one weight per instance and feature$",
    ),
    "other's numbers as text": (given("saliency"), T, "^values must hold numbers, got 'saliency'$"),
    "other's numbers with holes": (given(HOLES), V, "^values have NaN or infinite numbers$"),
    "other's numbers of other instances": (given(X[:2]), V, r"^values have shape \(2, 6\), x \(3, 6\)"),
    "maps that differ within a feature": (
        given(X, like=lx.kernel_shap(features=[0, 0, 1, 1, 2, 2])),
        V,
        "^a map must have one value on all entries of a feature; give one weight per feature$",
    ),
    "validation of other's numbers": (
        lambda: given()().validate(10),
        V,
        "^validate needs the model, which a loaded or given explanation has not$",
    ),
    "an explainer of another shape": (
        asks(lambda model, x, target: x[:, :2]),
        V,
        r"^explainer 'mine' must return maps of x's shape \(3, 6\), got \(3, 2\)$",
    ),
    "an explainer of nothing": (
        asks(lambda model, x, target: None),
        T,
        "^explainer 'mine' must return maps of numbers, got NoneType$",
    ),
    "one replicate": (
        lambda: lx.explain_mean(network().eval(), X, lx.kernel_shap(), replicates=1),
        V,
        "^replicates must be a whole number ≥ 2, got 1$",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence(name):
    call, kind, match = CASES[name]
    with pytest.raises(kind, match=match) as caught:
        call()
    assert type(caught.value) is kind
    assert kind is not G or issubclass(G, TypeError)
    assert len(str(caught.value)) < 400


# ---- what is around an error


@pytest.mark.parametrize(
    "error", [KeyError("a"), torch.OutOfMemoryError("x"), MemoryError("x"), ZeroDivisionError("x")]
)
def test_errors_inside_the_model_are_chained(error):
    with pytest.raises((ValueError, MemoryError)) as caught:
        explains(model=Calls(error))()
    assert caught.value.__cause__ is error


def test_interrupts_pass_through():
    with pytest.raises(KeyboardInterrupt):
        explains(model=Calls(KeyboardInterrupt()))()


def test_a_smaller_batch_is_the_way_out_of_memory():
    model = Calls(torch.OutOfMemoryError("CUDA out of memory"))
    e = lx.explain(model, X, lx.kernel_shap(), n_samples=64, batch_size=10)
    torch.testing.assert_close(e.weights, X, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"target": 5},
        {"n_samples": 1},
        {"batch_size": 0},
        {"method": lx.c_lime(torch.full((5,), 0.1))},
        {"method": masks(lx.Linear(intercept=False))},
        {"method": gradients(Drawn(weight=lambda xi: 0 * xi[:, 0]))},
        {"x": X[:, :5]},
        {"x": HOLES},
    ],
    ids=["target", "n_samples", "batch_size", "sigma", "exact rows", "weights", "width", "NaN"],
)
def test_the_model_is_left_as_it_was(settings):
    net = network(dropout=True)
    net[2].eval()  # mixed
    before = [m.training for m in net.modules()], [p.clone() for p in net.parameters()]
    settings = {"method": lx.kernel_shap(), "x": X, "n_samples": 64} | settings
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model is in training mode")
        with pytest.raises((ValueError, TypeError)):
            lx.explain(net, **settings)
    assert [m.training for m in net.modules()] == before[0]
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(net.parameters(), before[1], strict=True))
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())


# ---- what looks bad and is not


def boosted():
    """Trees that take NaN, and a frame with holes in two columns."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(300, 6))
    y = data[:, 0] + np.where(data[:, 1] > 0, 2 * data[:, 2], 1.0)
    data[rng.random(data.shape) < 0.1] = np.nan
    model = HistGradientBoostingRegressor(max_iter=20).fit(pd.DataFrame(data, columns=COLUMNS), y)
    x = data[:3].copy()
    x[0, 1] = x[1, 4] = x[2, 2] = np.nan
    return model, pd.DataFrame(x, columns=COLUMNS)


def removed(model, x, mask, baseline=0.25):
    """The model at x with the entries outside the mask replaced."""
    return model.predict(pd.DataFrame(np.where(mask, x, baseline), columns=COLUMNS))


def test_missing_values_that_masks_remove_are_shapley_values():
    model, x = boosted()
    e = lx.explain(model, x, lx.kernel_shap(baseline=0.25), n_samples=2**6)
    coalitions = np.array(list(itertools.product([False, True], repeat=6)))
    value = {tuple(m): removed(model, x, m) for m in coalitions}
    expected = np.zeros(x.shape)
    for order in itertools.permutations(range(6)):
        mask = [False] * 6
        for j in order:
            before = value[tuple(mask)]
            mask[j] = True
            expected[:, j] += (value[tuple(mask)] - before) / 720
    np.testing.assert_allclose(e.weights, expected, rtol=0, atol=1e-10)
    assert list(e.to_frame()["feature"][:6]) == COLUMNS


def test_missing_values_that_are_occluded():
    model, x = boosted()
    e = lx.explain(model, x, lx.occlusion(baseline=0.25))
    for j in range(6):
        expected = model.predict(x) - removed(model, x, np.arange(6) != j)
        np.testing.assert_allclose(e.weights[:, j], expected, rtol=0, atol=1e-12)


def test_missing_values_under_lime_are_measured_in_masks():
    model, x = boosted()
    where = lx.Multiplicative(lx.AllCoalitions(), 0.25, kernel=lx.ExponentialKernel(2.0, measured_in="xi"))
    e = lx.explain(model, x, squares(where))
    masks = np.array(list(itertools.product([False, True], repeat=6)))
    root = np.exp(-(~masks).sum(1) / 2.0**2 / 2)[:, None]
    y = np.array([removed(model, x, m) for m in masks])
    theta = np.linalg.lstsq(root * np.c_[masks, np.ones(64)], root * y, rcond=None)[0]
    np.testing.assert_allclose(e.weights, theta[:6].T, rtol=0, atol=1e-10)


def test_nullable_and_boolean_columns_are_numbers():
    x = pd.DataFrame({"a": pd.array([1, 2], dtype="Int64"), "b": [True, False], "c": [0.5, 1.5]})
    e = lx.explain(lambda a: a @ np.array([1.0, 2.0, 3.0]), x, lx.occlusion())
    np.testing.assert_allclose(e.weights, [[1, 2, 1.5], [2, 0, 4.5]], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"NaN or infinite values in feature\(s\) a;"):
        lx.explain(total, x.assign(a=pd.array([1, None], dtype="Int64")), lx.c_lime())


# ---- advice that works


@pytest.mark.parametrize(("d", "n"), [(6, 20), (12, 400), (300, 2000)])
def test_a_width_that_is_too_narrow_comes_with_one_that_is_not(d, n):
    x = torch.randn(3, d, generator=torch.Generator().manual_seed(1), dtype=F64)

    def model(a):
        return torch.tanh(a[:, :5].sum(1))

    with pytest.raises(
        ValueError, match=r"effective sample size of .* width=0\.5 is too narrow here: use width="
    ) as error:
        lx.explain(model, x, lx.lime(width=0.5), n_samples=n)
    width = float(re.search(r"use width=([\d.e+]+)", str(error.value))[1])
    e = lx.explain(model, x, lx.lime(width=width), n_samples=n)
    assert torch.isfinite(e.weights).all()


@pytest.mark.parametrize("sigma", [1e-9, 1e-6, 1e-4])
def test_a_sigma_that_is_too_small_comes_with_one_that_is_not(sigma):
    net, x = network(dtype=torch.float32).eval(), X.float()
    with pytest.warns(
        UserWarning, match=r"so small that differences of f vanish in torch\.float32: use sigma ≥"
    ) as caught:
        lx.explain(net, x, lx.c_lime(sigma), n_samples=400)
    least = float(re.search(r"use sigma ≥ ([\d.e+-]+),", str(caught[0].message))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "f is linear|a few of the")  # of what errors say
        e = lx.explain(net, x, lx.c_lime(least), n_samples=400)
    exact = lx.explain(network().eval(), X, lx.vanilla_gradients()).weights
    assert (e.weights - exact).abs().max() < 0.02 * exact.abs().max()
    assert least < 1e-2


def test_what_is_too_small_for_half_precision_says_so():
    """The model is in float64, and its differences still vanish: the inputs are rounded."""
    with pytest.warns(
        UserWarning, match=r"vanish in torch\.float16: use sigma ≥ .*, x and the model in float64"
    ) as caught:
        lx.explain(lambda a: a.double().sum(1), X.half(), lx.c_lime(1e-3), n_samples=400)
    least = float(re.search(r"use sigma ≥ ([\d.e+-]+),", str(caught[0].message))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "f is linear|a few of the")  # of what errors say
        lx.explain(lambda a: a.double().sum(1), X.half(), lx.c_lime(least), n_samples=400)
        e = lx.explain(lambda a: a.double().sum(1), X.half().double(), lx.c_lime(1e-3), n_samples=400)
    torch.testing.assert_close(e.weights, torch.ones(3, 6, dtype=F64))


@pytest.mark.parametrize(
    "method",
    [lx.c_lime(), lx.lime(width=9.0), lx.kernel_shap(), squares(lx.Additive(lx.Normal(0.1, antithetic=True)))],
    ids=["C-LIME", "LIME", "KernelSHAP", "antithetic"],
)
def test_few_samples_warn_with_a_number_that_does_not(method):
    net = network().eval()
    with pytest.warns(UserWarning, match=r"^n_samples is small: .* Use n_samples ≥") as caught:
        lx.explain(net, X, method, n_samples=9)
    enough = int(re.search(r"Use n_samples ≥ (\d+)", str(caught[0].message))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "f is linear|a few of the")  # of what errors say
        lx.explain(net, X, method, n_samples=enough)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_too_few_samples_to_shrink(n):
    with pytest.raises(ValueError, match="n_samples"):
        lx.explain(network().eval(), X, lx.lime(width=9.0), n_samples=n)
