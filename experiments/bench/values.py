"""v of coalitions that travel to other environments: numpy alone is imported here."""

from collections.abc import Callable
from typing import Any

import numpy as np

Values = Callable[[np.ndarray], np.ndarray]  # v of coalitions, (m, d) of 0 and 1


def looked_up(table: np.ndarray) -> Values:
    """From the table of all 2ᵈ; bit i of the index is player i."""
    return lambda masks: table[(np.asarray(masks) > 0.5) @ (1 << np.arange(np.shape(masks)[1]))]


class Margin:
    """A classifier's log-odds, absent entries at a baseline."""

    def __init__(self, model: Any, x: np.ndarray, baseline: np.ndarray) -> None:
        self.model, self.x, self.baseline = model, x, baseline

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.decision_function(np.where(np.asarray(masks) > 0.5, self.x, self.baseline)))
