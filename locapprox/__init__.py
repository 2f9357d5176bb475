"""locapprox: an explanation is a regression."""

from locapprox.distributions import AllCoalitions as AllCoalitions
from locapprox.distributions import Draw as Draw
from locapprox.distributions import FairMasks as FairMasks
from locapprox.distributions import GaussLegendre as GaussLegendre
from locapprox.distributions import LeaveOneOut as LeaveOneOut
from locapprox.distributions import Normal as Normal
from locapprox.distributions import PointMass as PointMass
from locapprox.distributions import ShapleyMasks as ShapleyMasks
from locapprox.distributions import Uniform as Uniform
from locapprox.explain import explain as explain
from locapprox.explanation import Explanation as Explanation
from locapprox.explanation import load as load
from locapprox.losses import GradientMatching as GradientMatching
from locapprox.losses import Loss as Loss
from locapprox.losses import SquaredError as SquaredError
from locapprox.method import Method as Method
from locapprox.methods import c_lime as c_lime
from locapprox.methods import gradient_x_input as gradient_x_input
from locapprox.methods import integrated_gradients as integrated_gradients
from locapprox.methods import kernel_shap as kernel_shap
from locapprox.methods import lime as lime
from locapprox.methods import occlusion as occlusion
from locapprox.methods import paper_methods as paper_methods
from locapprox.methods import smoothgrad as smoothgrad
from locapprox.methods import vanilla_gradients as vanilla_gradients
from locapprox.neighbourhoods import Additive as Additive
from locapprox.neighbourhoods import ExponentialKernel as ExponentialKernel
from locapprox.neighbourhoods import Multiplicative as Multiplicative
from locapprox.neighbourhoods import Neighbourhood as Neighbourhood
from locapprox.surrogates import Constrained as Constrained
from locapprox.surrogates import Linear as Linear
from locapprox.surrogates import Logistic as Logistic
from locapprox.surrogates import Sparse as Sparse

__version__ = "0.1.0"
