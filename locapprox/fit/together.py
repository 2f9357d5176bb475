"""One call of the model for several small draws: forests and networks have a price for every call."""

from collections.abc import Iterable, Iterator

from locapprox.fit.sampling import Sample


def together(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples, of which values are asked; small ones have the model's answers from a call that they share."""
    waiting, rows = list[Sample](), 0
    for sample in samples:
        more = sample.plan.rows * sample.plan.copies * len(sample.x)
        if rows + more > sample.scores.rows_per_call:
            yield from answered(waiting)
            waiting, rows = [], 0
        if sample.keeps_draw:
            waiting.append(sample)
            rows += more
        else:
            yield sample
    yield from answered(waiting)


def answered(samples: list[Sample]) -> Iterator[Sample]:
    """With the answers at all their rows, if there are two of them or more."""
    if len(samples) > 1:
        parts = [(sample, block) for sample in samples for block in sample.blocks()]
        placed = [sample.neighbourhood.placed(sample.x, block.rows) for sample, block in parts]
        scores = samples[0].scores.of_several(placed, [sample.instances for sample, _ in parts])
        for (sample, block), values in zip(parts, scores, strict=True):
            sample.answers[block] = values
        samples[0].scores.require_finite()
    while samples:  # none is held longer than it is fitted
        yield samples.pop(0)
