"""The lasso paths of many problems at once, against sklearn's one by one."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import lars_path_gram

from locapprox.fit.lasso_path import last_with


def of_sklearn(gram, score, k):
    path = lars_path_gram(score, gram, n_samples=1, method="lasso", max_iter=8 * len(gram))[2]
    return path[:, np.flatnonzero((path != 0).sum(0) <= k)[-1]] != 0


@pytest.mark.parametrize("seed", range(16))
def test_paths_are_those_of_sklearn_and_a_repeated_column_changes_none(seed):
    """Beside repeated columns sklearn's own path loses features, so the column is left out there."""
    rng = np.random.default_rng(seed)
    d, B = int(rng.integers(4, 30)), 8
    k, X = int(rng.integers(1, d)), rng.normal(size=(B, d + 20, d))
    X = X @ rng.normal(size=(d, d)) if seed % 2 else X
    X[..., 3] = X[..., 1] if seed % 3 == 0 else X[..., 3]
    y = X[..., :4].sum(-1) + 10 * rng.normal(size=(B, d + 20))
    X /= np.sqrt((X**2).sum(1, keepdims=True))
    gram, score = X.swapaxes(1, 2) @ X, np.einsum("bni,bn->bi", X, y)
    score *= 1500 / np.abs(score).max(1, keepdims=True)
    found = last_with(torch.from_numpy(gram), torch.from_numpy(score), k).numpy()
    keep = np.delete(np.arange(d), 3) if seed % 3 == 0 else np.arange(d)
    if seed % 3 == 0:
        assert not (found[:, 1] & found[:, 3]).any()
        found[:, 1] |= found[:, 3]
    for i in range(B):
        np.testing.assert_array_equal(found[i, keep], of_sklearn(gram[i][np.ix_(keep, keep)], score[i, keep], k))
