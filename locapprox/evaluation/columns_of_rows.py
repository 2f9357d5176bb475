"""A column of the faithfulness matrix whose loss is not quadratic: measured on rows that are kept."""

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit.descent import minimise, start
from locapprox.fit.links import IDENTITY
from locapprox.fit.losses import RowLoss
from locapprox.fit.newton import fit_kept
from locapprox.fit.rows import Rows, kept_rows
from locapprox.fit.sampling import Sample
from locapprox.fit.validate import loss_of_gradients


def measured(
    part: Sample, loss: RowLoss, w: Float[Tensor, "b m d"], c: Float[Tensor, "b m"], refitted: bool
) -> dict[str, Float[Tensor, "b m"]]:
    """The mean loss of m linear surrogates of every instance, of the best one and of the best constant.

    `error` is with the intercept refitted under this loss, or so that rows to interpolate are met on average where
    there are some; `optimum` the mean of the best fit's loss in sample and on groups of rows left out.
    """
    kept = kept_rows(part, loss, IDENTITY, True)
    rows, fit = kept.rows, fit_kept(kept)
    if refitted:
        c = refitted_intercept(rows, w, loss)
    best = torch.cat([fit.weights, fit.intercept[..., None]], -1)
    least = mean_loss(rows, loss, best)
    theta = torch.cat([w, c[..., None]], -1)
    error, constant = mean_loss(rows, loss, theta), fit.constant_loss.expand_as(c)
    optimum = ((least + fit.loss) / 2).expand_as(error)
    gap = (theta @ rows.exact.mT - rows.exact_y[:, None]).abs()
    violation = gap.amax(-1) if len(rows.exact) else torch.zeros_like(error)
    return {"error": error, "optimum": optimum, "violation": violation, "constant": constant}


def refitted_intercept(rows: Rows, w: Float[Tensor, "b m d"], loss: RowLoss) -> Float[Tensor, "b m"]:
    """The best one for these weights; under a loss of gradients, which leave it free, the mean of f − w · ξ."""
    b, m, d = w.shape
    if len(rows.exact):
        return (rows.exact_y[:, None] - w @ rows.exact[:, :d].mT).mean(-1)
    left = rows.y[:, None] - w @ rows.X[:, :d].mT
    if loss.of_gradients:
        return (rows.weight[:, None] * left).sum(-1) / rows.weight.sum(-1, keepdim=True)
    of_each = rows.location(left.flatten(0, 1), rows.weight.repeat_interleave(m, 0))
    return minimise(of_each, start(of_each)).reshape(b, m)


def mean_loss(rows: Rows, loss: RowLoss, theta: Float[Tensor, "b m p"]) -> Float[Tensor, "b m"]:
    """Over the rows of finite weight; gradients one surrogate at a time."""
    weight, total = rows.weight[:, None], rows.weight.sum(-1, keepdim=True)
    if rows.G is None:
        terms = loss.terms(rows.y[:, None].expand(-1, theta.shape[1], -1), theta @ rows.X.mT, rows.link)
        return (weight * terms.loss).sum(-1) / total
    d = rows.G.shape[-1]
    each = [loss_of_gradients(loss, rows.G - w[:, None, :d]) for w in theta.unbind(1)]
    return (weight * torch.stack(each, 1)).sum(-1) / total
