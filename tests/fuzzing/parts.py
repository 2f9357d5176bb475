"""Users' own parts: legal ones with what they mean, and one for every way of breaking the contract."""

import numpy as np
import torch

import locapprox as lx

F64 = torch.float64


def normal(x, n, rng, *lead):
    return 0.5 * torch.randn(*lead, n, x[0].numel(), generator=rng, dtype=x.dtype)


def draw(change=lambda xi, w: lx.Draw(xi, w)):
    """A method `draw`: Gaussian noise and weight 1, changed."""

    def method(self, x, n, rng):
        xi = normal(x, n, rng)
        return change(xi, torch.ones(len(xi), dtype=F64))

    return method


def place(change):
    return lambda self, x, xi: change(x, xi.reshape(*xi.shape[:-1], *x.shape[1:]))


def part(base=object, draw=draw(), place=place(lambda x, xi: x.unsqueeze(1) + xi), **rest):  # noqa: B008
    return type("Own", (base,), {"draw": draw, "place": place, **rest})()


def at_once(**parts):
    return part(lx.BaseNeighbourhood, draws_at_once=True, **parts)


def raising(error):
    def method(self, *given):
        raise error

    return method


def own_draw(make):
    """A method `draw` from (x, n, rng)."""
    return lambda self, x, n, rng: make(x, n, rng)


def random_fixed(xi, w):
    return lx.Draw(xi, w, n_fixed=len(xi))


def with_first(value):
    def change(xi, w):
        xi[0, 0] = value
        return lx.Draw(xi, w)

    return change


def weighing(value):
    def change(xi, w):
        w[0] = value
        return lx.Draw(xi, w)

    return change


def by_distance(x, n, rng):
    xi = normal(x, n, rng)
    return lx.Draw(xi, torch.exp(-(x[:, None].abs() @ xi.abs().mT)[:, 0]).double())


# legal: a part and its rows and pull, (x, ξ) -> (n, m, d), g -> (n, q); whether the oracle knows errors too
LEGAL = {
    "noise": part(),
    "weights of float32": part(draw=draw(lambda xi, w: lx.Draw(xi, w.float()))),
    "weights of every instance": part(draw=own_draw(by_distance)),
    "a draw of every instance": part(
        draw=own_draw(
            lambda x, n, rng: lx.Draw(
                normal(x, n, rng, 1).expand(len(x), -1, -1) * (1 + x.abs().amax(1)[:, None, None]),
                torch.ones(n, dtype=F64),
            )
        )
    ),
    "one row less": part(draw=draw(lambda xi, w: lx.Draw(xi[:-1], w[:-1]) if len(xi) > 2 else lx.Draw(xi, w))),
    "zero weights": part(draw=draw(lambda xi, w: lx.Draw(xi, (xi[:, 0] > -0.5).double()))),
    "pairs": part(draw=draw(lambda xi, w: lx.Draw(torch.stack([xi[::2], -xi[::2]], 1).flatten(0, 1), w, unit_size=2))),
    "large weights": part(draw=draw(lambda xi, w: lx.Draw(xi, 1e200 * w))),
    "small weights": part(draw=draw(lambda xi, w: lx.Draw(xi, 1e-200 * w))),
    "enumerated": at_once(
        draw=lambda self, x, n, rng: random_fixed(
            torch.linspace(-1, 1, 8 * x[0].numel(), dtype=x.dtype).reshape(8, -1).cos()
            ** (1 + torch.arange(8.0, dtype=x.dtype)[:, None] % 3),
            torch.ones(8, dtype=F64),
        )
    ),
    "its own mean": at_once(draw=draw(lambda xi, w: lx.Draw(xi - xi.mean(0), w))),
    "in the middle": part(
        draw=draw(lambda xi, w: lx.Draw(xi, w)), place=place(lambda x, xi: torch.stack([x.unsqueeze(1) + xi] * 2, 2))
    ),
}

BROKEN = {
    "a tuple": part(draw=draw(lambda xi, w: (xi, w))),
    "a tensor": part(draw=draw(lambda xi, w: xi)),
    "nothing": part(draw=draw(lambda xi, w: None)),
    "numpy ξ": part(draw=draw(lambda xi, w: lx.Draw(xi.numpy(), w))),
    "numpy weights": part(draw=draw(lambda xi, w: lx.Draw(xi, w.numpy()))),
    "ξ of one axis": part(draw=draw(lambda xi, w: lx.Draw(xi[:, 0], w))),
    "ξ of four axes": part(draw=draw(lambda xi, w: lx.Draw(xi[None, None], w))),
    "no weights": part(draw=draw(lambda xi, w: lx.Draw(xi, None))),
    "one weight": part(draw=draw(lambda xi, w: lx.Draw(xi, w[:1]))),
    "a number as weight": part(draw=draw(lambda xi, w: lx.Draw(xi, 1.0))),
    "complex weights": part(draw=draw(lambda xi, w: lx.Draw(xi, w + 0j))),
    "complex ξ": part(draw=draw(lambda xi, w: lx.Draw(xi + 0j, w))),
    "whole ξ": part(draw=draw(lambda xi, w: lx.Draw((3 * xi).long(), w))),
    "NaN in ξ": part(draw=draw(with_first(torch.nan))),
    "infinity in ξ": part(draw=draw(with_first(torch.inf))),
    "NaN weight": part(draw=draw(weighing(torch.nan))),
    "negative weight": part(draw=draw(weighing(-1.0))),
    "all weights zero": part(draw=draw(lambda xi, w: lx.Draw(xi, 0 * w))),
    "infinite and finite weights": part(
        draw=own_draw(
            lambda x, n, rng: lx.Draw(
                normal(x, n, rng),
                torch.ones(len(x), n, dtype=F64).index_put(
                    (torch.tensor(0), torch.tensor(0)), torch.tensor(torch.inf, dtype=F64)
                ),
            )
        )
    ),
    "unit 0": part(draw=draw(lambda xi, w: lx.Draw(xi, w, unit_size=0))),
    "unit −2": part(draw=draw(lambda xi, w: lx.Draw(xi, w, unit_size=-2))),
    "unit 1.5": part(draw=draw(lambda xi, w: lx.Draw(xi, w, unit_size=1.5))),
    "unit 7 of 60": part(draw=draw(lambda xi, w: lx.Draw(xi, w, unit_size=7))),
    "fixed −1": part(draw=draw(lambda xi, w: lx.Draw(xi, w, n_fixed=-1))),
    "fixed beyond": part(draw=draw(lambda xi, w: lx.Draw(xi, w, n_fixed=len(xi) + 5))),
    "random, said to be fixed": at_once(draw=draw(random_fixed)),
    "coarse of another length": at_once(draw=draw(lambda xi, w: lx.Draw(xi, w, n_fixed=len(xi), coarse_weight=w[:3]))),
    "no rows": part(draw=draw(lambda xi, w: lx.Draw(xi[:0], w[:0]))),
    "too many rows": part(draw=draw(lambda xi, w: lx.Draw(torch.cat([xi, xi]), torch.cat([w, w])))),
    "global random numbers": part(draw=draw(lambda xi, w: lx.Draw(torch.randn_like(xi), w))),
    "numpy's random numbers": part(draw=draw(lambda xi, w: lx.Draw(xi * float(np.random.rand()), w))),  # noqa: NPY002
    "draws of three instances": part(
        draw=own_draw(lambda x, n, rng: lx.Draw(normal(x, n, rng, 3), torch.ones(n, dtype=F64)))
    ),
    "weights of three instances": part(
        draw=own_draw(lambda x, n, rng: lx.Draw(normal(x, n, rng), torch.rand(3, n, generator=rng, dtype=F64)))
    ),
    "depends on the batch": part(
        draw=own_draw(lambda x, n, rng: lx.Draw(normal(x, n, rng) * (1 + len(x)), torch.ones(n, dtype=F64)))
    ),
    "depends on the first": part(
        draw=own_draw(lambda x, n, rng: lx.Draw(normal(x, n, rng) * (1 + x[0].abs()), torch.ones(n, dtype=F64)))
    ),
    "draw changes x": part(
        draw=own_draw(lambda x, n, rng: lx.Draw(normal(x.add_(1), n, rng), torch.ones(n, dtype=F64)))
    ),
    "draw raises": part(draw=raising(KeyError("boom"))),
    "draw stops": part(draw=raising(StopIteration())),
    "draw of other arguments": part(draw=lambda self, x: None),
    "place raises": part(place=raising(KeyError("boom"))),
    "place gives nothing": part(place=place(lambda x, xi: None)),
    "place gives numpy": part(place=place(lambda x, xi: (x.unsqueeze(1) + xi).detach().numpy())),
    "place of another shape": part(place=place(lambda x, xi: (x.unsqueeze(1) + xi)[..., :-1])),
    "place of no rows": part(place=place(lambda x, xi: x + xi.mean(-2))),
    "a row too few": part(place=place(lambda x, xi: (x.unsqueeze(1) + xi)[:, : max(1, xi.shape[-2] - 1)])),
    "place for shared ξ only": part(place=lambda self, x, xi: x[:, None] + xi.reshape(1, -1, *x.shape[1:])),
    "place of another dtype": part(place=place(lambda x, xi: (x.unsqueeze(1) + xi).half())),
    "place loses ξ": part(place=place(lambda x, xi: x.unsqueeze(1) + xi.detach())),
    "place changes x": part(place=place(lambda x, xi: x.mul_(1.5).unsqueeze(1) + xi)),
    "place changes ξ": part(
        place=lambda self, x, xi: x.unsqueeze(1) + (xi.mul_(2) if not xi.requires_grad else 2 * xi)
    ),
    "place mixes instances": part(place=place(lambda x, xi: x.unsqueeze(1) + xi + x.mean())),
    "place mixes rows": part(place=place(lambda x, xi: x.unsqueeze(1) + xi - xi.mean(-2, keepdim=True))),
    "place gives NaN": part(place=place(lambda x, xi: x.unsqueeze(1) + xi * torch.nan)),
    "place is random": part(place=place(lambda x, xi: x.unsqueeze(1) + xi + torch.rand(1, dtype=x.dtype))),
    "an empty stream": part(lx.BaseNeighbourhood, blocks=lambda self, x, n, rng: iter(())),
    "a stream of tensors": part(lx.BaseNeighbourhood, blocks=lambda self, x, n, rng: iter([torch.ones(3)])),
    "says no rows interpolate": part(lx.BaseNeighbourhood, draw=draw(weighing(torch.inf)), interpolates=False),
    "vanishing": part(draw=draw(lambda xi, w: lx.Draw(1e-20 * xi, w))),
    "a class": lx.FairMasks,
    "a number": 3,
}

LOSS_OF = dict.fromkeys(("place for shared ξ only", "place loses ξ"), "gradients") | {
    "vanishing": "values",
    "place changes ξ": "values",
}

DISTRIBUTIONS = {
    "a tuple": lambda xi, w: (xi, w),
    "another dtype": lambda xi, w: lx.Draw(xi.half(), w),
    "a column less": lambda xi, w: lx.Draw(xi[:, 1:], w),
    "for instances": lambda xi, w: lx.Draw(xi[None].expand(3, -1, -1), w),
    "global random numbers": lambda xi, w: lx.Draw(torch.randn_like(xi), w),
    "NaN": with_first(torch.nan),
    "negative weight": weighing(-1.0),
    "unit 0": lambda xi, w: lx.Draw(xi, w, unit_size=0),
}


def distribution(change):
    def method(self, d, n, rng, dtype):
        return change(torch.randn(n, d, generator=rng, dtype=dtype), torch.ones(n, dtype=F64))

    return lx.Additive(type("Own", (), {"draw": method})())


def ridge(sample, how, **changed):
    """A user's surrogate: means of f, no slopes, changed in one field."""
    blocks = [sample.values(block)[1] for block in sample.blocks()]
    y = torch.cat(blocks, -1).double()
    zeros = y.new_zeros(*y.shape[:2], sample.d)
    mean, loss_ = y.mean(-1), y.var(-1, correction=0)
    fields = {"weights": zeros, "intercept": mean, "standard_error": zeros, "loss": loss_, "constant_loss": loss_}
    return lx.Fit(**{**fields, **{k: change(fields[k]) for k, change in changed.items()}})


def surrogate(**methods):
    return type("Own", (), methods)()


SURROGATES = {
    "returns nothing": surrogate(fit=lambda self, sample, loss: None),
    "returns weights": surrogate(fit=lambda self, sample, loss: torch.zeros(3, 1, sample.d)),
    "raises": surrogate(fit=raising(KeyError("boom"))),
    "other arguments": surrogate(fit=lambda self, sample: None),
    "weights of one axis": surrogate(fit=lambda self, s, loss: ridge(s, loss, weights=lambda w: w[:, 0, 0])),
    "a weight less": surrogate(fit=lambda self, s, loss: ridge(s, loss, weights=lambda w: w[..., 1:])),
    "numpy": surrogate(fit=lambda self, s, loss: ridge(s, loss, weights=lambda w: w.numpy())),
    "no loss": surrogate(fit=lambda self, s, loss: ridge(s, loss, loss=lambda w: None)),
    "an instance less": surrogate(fit=lambda self, s, loss: ridge(s, loss, intercept=lambda w: w[1:])),
    "complex": surrogate(fit=lambda self, s, loss: ridge(s, loss, weights=lambda w: w + 0j)),
    "NaN weights": surrogate(fit=lambda self, s, loss: ridge(s, loss, weights=lambda w: w + torch.nan)),
    "negative loss": surrogate(fit=lambda self, s, loss: ridge(s, loss, loss=lambda w: -1 - w)),
    "no constraints": lx.Constrained(lambda w, b: None),
    "constraint True": lx.Constrained(lambda w, b: [True]),
    "not a list": lx.Constrained(lambda w, b: w >= 0),
    "impossible": lx.Constrained(lambda w, b: [w >= 1, w <= 0]),
    "raising constraints": lx.Constrained(raising(KeyError("boom"))),
    "constraints of another size": lx.Constrained(lambda w, b: [w >= np.zeros(99)]),
    "a class": lx.Linear,
}
