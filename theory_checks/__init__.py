"""Theory checks: every statement the framework rests on, as a computed number. `python -m theory_checks`."""

import experiments  # noqa: F401 (joblib's workers end with their parent)
