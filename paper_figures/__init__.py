"""Figures from result files; no model is ever loaded. `python -m paper_figures --results results/paper` draws all."""
