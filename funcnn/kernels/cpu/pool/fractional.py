"""The windows of fractional max pooling: floor((i + u) a) - floor(u a) for a sample u of each image and dimension,
a = (pixels - size) / (windows - 1), the last window at the end (Graham, arXiv:1412.6071)."""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, exact_function, kernel
from funcnn.kernels.cpu.vector.instructions import pointer


@exact_function
def place_of(i, u, alpha):
    """Returns where window i begins, each rounding as it stands here."""
    return int((i + u) * alpha) - int(u * alpha)


@device_function
def axis_bounds(samples, at, out, pixels, windows, size):
    """Returns the starts and the ends of the windows along one dimension, for sample ``at``."""
    kind, last = samples.dtype.type, pixels - size
    u, alpha = pointer(samples, at)[0], kind(last) / kind(max(windows - 1, 1))
    for i in range(windows):
        start = place_of(kind(i), u, alpha) if i < windows - 1 else last
        out[2 * i], out[2 * i + 1] = start, start + size


@kernel(
    touches={
        "samples": lambda bounds, sizes: len(bounds) * sizes[0],
        "bounds": lambda bounds, sizes: 2 * len(bounds) * (sizes[4] + sizes[5] + sizes[6]),
    }
)
def window_bounds(samples, bounds, sizes):
    """Writes bounds (M, O + P + Q, 2) = start and end of each image's windows along D, H and W.

    samples (M, n): of an image's dimensions, PyTorch's order: (width, height), but (depth, height, width). sizes: n, the
    sizes of an image, of its outputs, of a window.
    """
    n, (D, H, W), (O, P, Q), images = sizes[0], sizes[1:4], sizes[4:7], len(bounds)
    for m in range(images):
        first, own = 2 * m * (O + P + Q), m * n
        if n == 3:
            axis_bounds(samples, own, pointer(bounds, first), D, O, sizes[7])
        else:
            bounds[m, 0, 0], bounds[m, 0, 1] = 0, 1
        axis_bounds(samples, own + 1, pointer(bounds, first + 2 * O), H, P, sizes[8])
        axis_bounds(samples, own + 2 if n == 3 else own, pointer(bounds, first + 2 * (O + P)), W, Q, sizes[9])
