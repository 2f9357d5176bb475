"""What docs/differences.md says of others, measured by running them: one function per row, which returns its numbers.

`python -m experiments.differences` prints all rows, `python -m experiments.differences ends nulls` some. Those of the
authors read their files from $LOCAPPROX_DATA/authors-repo; `rule` and `smoothgrad` need `pip install saliency`, too.
"""

from collections.abc import Callable

from experiments.differences import authors, libraries

Row = Callable[[], dict[str, float]]
ROWS: dict[str, Row] = {row.__name__: row for row in (*libraries.ROWS, *authors.ROWS)}
