"""Limits of minimisers on neighbourhoods that shrink: closed forms, rates, and what they are not."""

import pytest
import torch

import locapprox as lx

F64 = torch.float64
X = torch.tensor([[0.3, -0.2], [-0.5, 0.7]], dtype=F64)
W = torch.tensor([1.2, -0.8], dtype=F64)
VALUES = [lx.SquaredError(), lx.SquaredError() + lx.GradientMatching(), lx.CrossEntropy(), lx.Huber(0.2)]
BOTH = lx.SquaredError() + lx.GradientMatching()


def logistic(a):
    return torch.sigmoid(a @ W + 0.3)


def bent(a):
    """A probability that is no logistic function of a line."""
    return torch.sigmoid(a @ W + 0.6 * torch.sin(2 * a[:, 0] * a[:, 1]) + 0.3 * a[:, 1] ** 2)


def explained(f, distribution, loss, surrogate=None, n=4000):
    method = lx.Method("m", lx.Additive(distribution), loss, surrogate or lx.Logistic())
    return lx.explain(f, X, method, n_samples=n, progress=False)


def derivatives(f):
    x = X.clone().requires_grad_()
    y = f(x)
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


@pytest.mark.parametrize("loss", VALUES, ids=repr)
def test_vanilla_gradients_with_a_logistic_surrogate_recover_w(loss):
    e = explained(logistic, lx.Limit(), loss)
    torch.testing.assert_close(e.weights, W.expand(2, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(e.intercept, X @ W + 0.3, rtol=0, atol=1e-12)
    assert (e.standard_error == 0).all()
    for sigma in (0.1, 1e-2, 1e-3):  # SmoothGrad has it at every σ
        smooth = explained(logistic, lx.Normal(sigma), lx.GradientMatching(), n=200)
        torch.testing.assert_close(smooth.weights, W.expand(2, -1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("loss", VALUES, ids=repr)
def test_the_limit_is_closed_form_and_reached_at_the_rate_of_sigma_squared(loss):
    y, slope = derivatives(bent)
    e = explained(bent, lx.Limit(), loss)
    torch.testing.assert_close(e.weights, slope / (y * (1 - y))[:, None], rtol=1e-10, atol=0)
    torch.testing.assert_close(e.intercept, y.logit(), rtol=1e-10, atol=0)
    gaps = []
    for sigma in (0.1, 0.05):
        near = explained(bent, lx.Normal(sigma, antithetic=True), loss)
        gaps.append(float((near.weights - e.weights).norm() + (near.intercept - e.intercept).norm()))
    print(gaps)
    assert 3.3 < gaps[0] / gaps[1] < 4.7
    line = explained(bent, lx.Limit(), lx.SquaredError(), lx.Linear())
    torch.testing.assert_close(line.weights, slope, rtol=1e-12, atol=0)
    torch.testing.assert_close(line.intercept, y, rtol=1e-12, atol=0)


def test_under_gradient_matching_alone_the_limit_is_about_curvature():
    """g₀ with (1 − 2g₀) / (g₀ (1 − g₀)) = ∇fᵀ ∇²f ∇f / ‖∇f‖⁴, which is f₀ only where f is logistic."""
    y, slope = derivatives(bent)
    near = explained(bent, lx.Normal(0.01, antithetic=True), lx.GradientMatching(), n=20_000)
    for i in range(2):
        hessian = torch.autograd.functional.hessian(lambda t: bent(t[None])[0], X[i])
        ratio = slope[i] @ hessian @ slope[i] / slope[i].square().sum() ** 2
        g = (ratio + 2 - (ratio**2 + 4).sqrt()) / (2 * ratio)
        assert abs((1 - 2 * g) / (g * (1 - g)) - ratio) < 1e-9
        assert abs(near.intercept[i] - g.logit()) < 0.005
        torch.testing.assert_close(near.weights[i], slope[i] / (g * (1 - g)), rtol=0.005, atol=0)
        assert abs(g - y[i]) > 0.02  # so it is no limit of value and gradient
    with pytest.raises(TypeError, match="about f's curvature"):
        lx.Method("m", lx.Additive(lx.Limit()), lx.GradientMatching(), lx.Logistic())
    with pytest.raises(TypeError, match="not Sparse"):
        lx.Method("m", lx.Additive(lx.Limit()), lx.SquaredError(), lx.Sparse(1))


def test_in_masks_around_one_the_limit_recovers_w_times_x():
    where = lx.Multiplicative(lx.Limit(1.0))
    e = lx.explain(logistic, X, lx.Method("m", where, lx.SquaredError(), lx.Logistic()))
    torch.testing.assert_close(e.weights, W * X, rtol=0, atol=1e-12)
    torch.testing.assert_close(e.predict(X), logistic(X), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="determine"):  # the point itself does not
        lx.explain(logistic, X, lx.Method("m", lx.Additive(lx.PointMass(0.0)), lx.SquaredError(), lx.Logistic()))
