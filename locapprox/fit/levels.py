"""Nested rules of quadrature one after the other: each asks the model at its new nodes, and instances whose error is
small enough stop."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from locapprox.fit.blocks import Block
from locapprox.fit.evidence import MOST_UNSEEN, resolved
from locapprox.fit.losses import Loss
from locapprox.fit.quadratic import Exact
from locapprox.fit.quadrature import moved_edges, on_a_line, rule_error, trend
from locapprox.fit.result import Fit
from locapprox.fit.sampling import Sample
from locapprox.fit.sums import Totals

KINKS = 1e-4  # of the largest weight: the least error that is looked for where f has kinks, before the last rule
SURE = 1e-6  # the same where nodes are too few to show kinks: the gap between two rules may be small by chance
ROUND_OFF = 16.0  # units of x's precision below which no error is known


class Rule(NamedTuple):
    """One of the nest: its weights, and those of copies with moved edges if kinks are looked for."""

    weight: Float[Tensor, " n"]
    copies: Float[Tensor, "s n"]
    nodes: int


def rules_of(block: Block, tol: float) -> list[Rule]:
    """Coarsest first. Kinks are looked for by the last, and by those whose nodes show them if `tol` is in reach."""
    assert block.coarse_weight is not None
    weights, rules = torch.cat([block.coarse_weight.to(block.weight), block.weight]), []
    for j, weight in enumerate(weights):
        nodes, copies = (weight != 0).nonzero()[:, 0], weight[None][:0]
        looks = j + 1 == len(weights) or (j > 0 and len(nodes) >= MOST_UNSEEN and tol >= KINKS)
        if looks and on_a_line(block.xi[nodes]):
            moved = moved_edges(weight[None, nodes])[0]
            copies = moved.new_zeros(len(moved), len(weight)).index_copy(1, nodes, moved)
        rules.append(Rule(weight, copies, len(nodes)))
    return rules


class Level(NamedTuple):
    """What a rule says of the instances that got so far."""

    theta: Float[Tensor, "b k p"]
    gap: Float[Tensor, "b k d"] | None  # to the rule before
    error: Float[Tensor, "b k d"]
    smooth: Bool[Tensor, "b k 1"]  # whether f is, or nothing tells
    known: Bool[Tensor, "b k 1"]  # whether the error is that of a smooth f, or of kinks that are seen

    def of(self, some: Int[Tensor, " c"]) -> "Level":
        """Of some of the instances."""
        return Level(*(part if part is None else part[some] for part in self))  # type: ignore[arg-type]


def level(totals: Totals, rule: Rule, before: Level | None, eps: float) -> Level:
    """By `trend`; where there are copies by `rule_error`, too."""
    problem = totals.problem()
    theta, d = problem.solve(Exact(problem.x[:0], problem.y[..., None][..., :0])).theta, problem.d
    nothing = torch.zeros_like(theta[..., :1], dtype=torch.bool)
    if before is None:
        return Level(theta, None, torch.full_like(theta[..., :d], torch.nan), ~nothing, nothing)
    gap, size = (theta - before.theta)[..., :d].abs(), largest(theta[..., :d])
    error, falls = trend(gap, before.gap)
    if len(rule.copies) == 0:
        return Level(theta, gap, error, ~nothing, falls | (largest(gap) <= eps * size))
    moved = totals.of_copies(len(rule.copies)) - theta[..., :d]
    return Level(theta, gap, *rule_error(gap, moved, error), ~nothing)


def largest(weights: Float[Tensor, "b k d"]) -> Float[Tensor, "b k 1"]:
    return weights.abs().amax(-1, keepdim=True)


def by_levels(sample: Sample, loss: Loss, intercept: bool) -> Fit:
    """Match gradients alone by the coarser rules of a draw, coarsest first, and then by its own.

    An instance stops where the error of a rule is at most `sample.neighbourhood.tol` of its largest weight. Sums are of
    the rule at hand and of those to come, so every row is asked for once. Where no instance can stop before the last
    rule, the last two are next.
    """
    (block,) = sample.blocks()
    eps = ROUND_OFF * torch.finfo(sample.x.dtype).eps
    tol = max(sample.neighbourhood.tol, eps) if sample.neighbourhood.tol else -1.0
    rules, asked = rules_of(block, tol), torch.zeros_like(block.weight[0], dtype=torch.bool)
    here, at, totals, now = sample, torch.arange(len(sample.x), device=sample.x.device), Totals(loss, intercept), None
    found: list[tuple[Tensor, ...]] = []
    end, leap = len(rules) - 1, True
    for j, rule in enumerate(rules):
        if leap and 0 < j < end - 1:
            totals = totals.rest(torch.arange(len(at), device=at.device), len(rule.copies))
            continue
        used = torch.stack([other.weight != 0 for other in rules[: j + 1 + leap]]).any(0)  # of one rule, no error
        ask(here, totals, block, (used & ~asked).nonzero()[:, 0], rules[j:])
        asked, now = used, level(totals, rule, now, eps)
        weights, error, problem = now.theta[..., : sample.d], now.error, totals.problem()
        limit = tol if len(rule.copies) else min(tol, max(SURE, eps))
        stops = (now.known & (error <= limit * largest(weights))).flatten(1).all(1) & (j > 1)
        if j == end:
            error, stops = resolved(error, now.smooth, rule.nodes, here), torch.ones_like(stops)
        if bool(stops.any()):
            constant = now.theta[..., -1] if intercept else torch.zeros_like(weights[..., 0])
            parts = weights, constant, error, problem.loss_of(now.theta), problem.constant_loss()
            rows = torch.full_like(at, int(used.sum()))
            found.append((at[stops], *(part[stops] for part in (*parts, rows))))
            here.skip(int(stops.sum()) * int((~used).sum()))
        goes = (~stops).nonzero()[:, 0]
        if len(goes) == 0:
            break
        if len(goes) < len(at):
            at, here, now = at[goes], here.of(goes), now.of(goes)
        totals = totals.rest(goes, len(rule.copies))
        near = now.known & (now.error <= max(limit, 0.0) ** 0.5 * largest(now.theta[..., : sample.d]))
        hopeless = rule.nodes >= MOST_UNSEEN and tol < KINKS and not bool(near.flatten(1).all(1).any())
        now = now._replace(gap=None) if leap or hopeless else now  # a gap to no neighbour has no trend
        leap = hopeless
    order, *whole = (torch.cat(parts) for parts in zip(*found, strict=True))
    w, c, error, left, of_constant, rows = (part[order.argsort()] for part in whole)
    return Fit(w, c, error, left, of_constant, rows=rows)


def ask(sample: Sample, totals: Totals, block: Block, rows: Int[Tensor, " r"], rules: list[Rule]) -> None:
    """The model at some rows, for the rules."""
    own = torch.stack([rule.weight[rows] for rule in rules])[None]
    weight = torch.cat([own, *(rule.copies[None, :, rows] for rule in rules)], dim=1)
    part = Block(block.xi[rows], own[0, :1], 1, len(rows), None, block.exact)
    X = sample.design(part, totals.intercept)
    y = X.new_empty(len(sample.x), sample.k, len(rows))
    for i, some, values, gradient in sample.gradients(part):
        y[i, :, some] = values
        totals.add_gradients(len(sample.x), i, weight[..., some], gradient, None, squares=len(rules))
    totals.add_values(X, own, y)
