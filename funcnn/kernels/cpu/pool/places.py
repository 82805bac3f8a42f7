"""What goes by the places of maxima: the gradient of max pooling, which scatters to them, its transpose, which gathers, and
unpooling. Arrays are (images, numbers); places are flat in an image, and below 0 where a window touched nothing."""

from __future__ import annotations

from funcnn.kernels.cpu.build.compile import device_function, kernel
from funcnn.kernels.cpu.build.parallel import parallel_for
from funcnn.kernels.cpu.vector.instructions import pointer


@kernel(touches={"argmax": lambda dy: dy.size, "dx": lambda dy, dx: len(dy) * dx.shape[1]})
def pool_scatter(dy, argmax, dx, images, threads):
    """dx = 0, then dx[m].flat[argmax] += dy: the gradient of ``max_pool``. A chunk is ``images`` images."""
    parallel_for(scatter_images, (dy.shape[0] + images - 1) // images, threads, (dy, argmax, dx, images))


@device_function
def scatter_images(chunk, worker, dy, argmax, dx, images):
    """The images of a chunk of ``pool_scatter``."""
    M, count = dy.shape
    size = dx.shape[1]
    for m in range(chunk * images, min((chunk + 1) * images, M)):
        source, index, out = pointer(dy, m * count), pointer(argmax, m * count), pointer(dx, m * size)
        for w in range(size):
            out[w] = 0
        for q in range(count):
            if index[q] >= 0:
                out[index[q]] += source[q]


@kernel(touches={"argmax": lambda y: y.size, "y": lambda x, y: len(x) * y.shape[1]})
def pool_gather(x, argmax, y, images, threads):
    """y = x[m].flat[argmax]: the transpose of ``pool_scatter``. A chunk is ``images`` images."""
    parallel_for(gather_images, (x.shape[0] + images - 1) // images, threads, (x, argmax, y, images))


@device_function
def gather_images(chunk, worker, x, argmax, y, images):
    """The images of a chunk of ``pool_gather``."""
    M, size = x.shape
    count = y.shape[1]
    nothing = x.dtype.type(0)
    for m in range(chunk * images, min((chunk + 1) * images, M)):
        source, index, out = pointer(x, m * size), pointer(argmax, m * count), pointer(y, m * count)
        for q in range(count):
            out[q] = source[index[q]] if index[q] >= 0 else nothing


@kernel(touches={"argmax": lambda x: x.size, "y": lambda x, y: len(x) * y.shape[1], "status": lambda: 4})
def max_unpool(x, argmax, y, status, images, threads):
    """y = 0, then y[m].flat[argmax] = x, the last of several with one index. A chunk is ``images`` images.

    status: an index outside y[m] is refused: 1, operand 1, the place of the first, the index.
    """
    parallel_for(place_images, (x.shape[0] + images - 1) // images, threads, (x, argmax, y, status, images))
    if status[0] != 0:
        index, at, size = pointer(argmax, 0), 0, y.shape[1]
        while index[at] >= 0 and index[at] < size:
            at += 1
        status[1], status[2], status[3] = 1, at, index[at]


@device_function
def place_images(chunk, worker, x, argmax, y, status, images):
    """The images of a chunk of ``max_unpool``."""
    M, count = x.shape
    size = y.shape[1]
    for m in range(chunk * images, min((chunk + 1) * images, M)):
        source, index, out = pointer(x, m * count), pointer(argmax, m * count), pointer(y, m * size)
        for w in range(size):
            out[w] = 0
        for q in range(count):
            if index[q] >= 0 and index[q] < size:
                out[index[q]] = source[q]
            else:
                status[0] = 1
