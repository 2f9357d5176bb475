"""Figures from result files; no model is ever loaded. `python -m paper_figures --results results/paper` draws all."""

import experiments  # noqa: F401 (joblib's workers end with their parent)
