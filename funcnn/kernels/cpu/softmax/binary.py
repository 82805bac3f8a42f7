"""Binary cross-entropy of probabilities: the loss of each element."""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import exact_function
from funcnn.kernels.cpu.elementwise.loops import loop2
from funcnn.kernels.cpu.vector.bits import pick
from funcnn.kernels.cpu.vector.functions import log, log1p

LEAST_LOGARITHM = -100.0  # of a logarithm, as in PyTorch


@exact_function
def _entropy(p, t):
    """Returns -(t log p + (1 - t) log(1 - p)), the logarithms held above -100; NaN where one is."""
    least, one = pick(p, LEAST_LOGARITHM, LEAST_LOGARITHM), pick(p, 1.0, 1.0)
    yes, no = log(p), log1p(-p)
    yes, no = least if yes < least else yes, least if no < least else no
    return (t - one) * no - t * yes


binary_cross_entropy = loop2("binary_cross_entropy", _entropy)
