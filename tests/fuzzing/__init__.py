"""Generated calls over the whole public API, each with a verdict: `python -m tests.fuzzing --seed 1 --cases 1700`."""
