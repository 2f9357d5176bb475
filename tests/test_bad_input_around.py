"""As test_bad_input, of everything around `explain`: every mistake has its sentence."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from test_bad_input import X, lx, network, total

V, T = ValueError, TypeError
MASKED = np.ma.masked_array(X.numpy(), X.numpy() > 0)


def perturbs(weights=X, **settings):
    """A call of perturbation_test, not yet made."""
    settings = {"draws": 3} | settings
    return lambda: lx.perturbation_test(total, X, {"w": weights}, **settings)


def asked(call, **settings):
    """Of its result, not yet asked."""
    return lambda: getattr(lx.perturbation_test(total, X, {"w": X, "v": -X}), call)(**settings)


CASES = {
    # perturbation tests
    **{
        f"sigma {value!r}": (
            perturbs(replace="noise", sigma=value),
            V,
            "^sigma must be positive and finite, one number; got",
        )
        for value in ("0.1", None, [0.1], torch.tensor([0.1, 0.2]), float("nan"), float("inf"), 0.0, -1)
    },
    **{
        f"weights {name}": (perturbs(weights), T, "^explanations: 'w' must hold real numbers, ")
        for name, weights in {
            "text": "abc",
            "none": None,
            "complex": X.to(torch.complex64),
            "objects": np.array(X.tolist(), dtype=object),
            "ragged": [[1.0], [1.0, 2.0]],
            "masked": MASKED,
        }.items()
    },
    "weights of nothing": (perturbs(X[:, :0]), V, r"^explanations: 'w' has shape \(3, 0\); expected 3 instances of 6"),
    "weights of other columns": (
        lambda: lx.perturbation_test(
            lambda a: a.sum(axis=1), pd.DataFrame(X.numpy()), {"w": pd.DataFrame(X.numpy())[[1, 0, 2, 3, 4, 5]]}
        ),
        V,
        "^explanations: 'w' has other columns than x, or in another order$",
    ),
    "a list of weights": (
        lambda: lx.perturbation_test(total, X, X.tolist()),
        T,
        r"^explanations must be a Method, an Explanation, an Explainer or an array, .*; got \[",
    ),
    "several outputs": (
        lambda: lx.perturbation_test(network(3).eval(), X, {"w": X}, target=range(3)),
        V,
        r"^target must choose one output for each instance, got range\(0, 3\)$",
    ),
    **{
        f"{call} at level {level!r}": (asked(call, level=level), V, "^level must be between 0 and 1, got ")
        for call, level in itertools.product(("curves", "summary", "compare"), (95, 1.5, 1, 0, -1, "0.95", None))
    },
    **{
        f"{call} up to {value!r}": (asked(call, up_to=value), V, "^up_to must be a whole number ≥ 1, got ")
        for call, value in itertools.product(("auc", "summary", "compare"), (0, -1, 2.5, "2"))
    },
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence(name):
    call, kind, match = CASES[name]
    with pytest.raises(kind, match=match) as caught:
        call()
    assert type(caught.value) is kind
    assert len(str(caught.value)) < 400
