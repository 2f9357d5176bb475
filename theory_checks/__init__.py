"""Theory checks: every statement the framework rests on, as a computed number. `python -m theory_checks`."""
