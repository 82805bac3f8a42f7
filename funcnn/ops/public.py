"""PyTorch's top-level functions, each named with the file where it stands: what ``import funcnn`` offers."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from funcnn.ops.attention import attention, multihead
from funcnn.ops.base.registry import OPERATIONS
from funcnn.ops.conv import conv, fold
from funcnn.ops.elementwise import activation, arithmetic, closeness
from funcnn.ops.indexing import along, embedding, index, scatter, sort
from funcnn.ops.matmul import matmul
from funcnn.ops.movement import join, pad, shuffle, triangle, windows
from funcnn.ops.movement import views as movement
from funcnn.ops.norm import norm
from funcnn.ops.pool import pool
from funcnn.ops.random import generator
from funcnn.ops.recurrent import functions as rnn
from funcnn.ops.reduce import extrema, logsumexp, moments, scan, vector_norm
from funcnn.ops.reduce import sums as reduce
from funcnn.ops.sampling import grid_sample, interpolate
from funcnn.ops.softmax import loss, softmax
from funcnn.ops.tensor import convert, creation, methods

# What ``import funcnn`` offers beside the classes: PyTorch's top-level functions, each where its family stands.
PUBLIC: dict[ModuleType, str] = {
    creation: """as_tensor tensor from_numpy from_dlpack zeros ones empty full zeros_like ones_like empty_like full_like
        arange linspace logspace eye""",
    generator: """Generator default_generator manual_seed initial_seed get_rng_state set_rng_state rand randn randint
        randperm rand_like randn_like randint_like normal bernoulli multinomial""",
    closeness: "isclose allclose equal",
    reduce: "sum mean any all count_nonzero nansum nanmean",
    extrema: "max min amax amin argmax argmin median aminmax",
    logsumexp: "logsumexp",
    vector_norm: "norm",
    moments: "var std var_mean std_mean",
    scan: "prod cumsum cumprod cummax cummin logcumsumexp",
    movement: """reshape flatten unflatten squeeze unsqueeze transpose t permute movedim swapaxes narrow select
        broadcast_to ravel clone detach stop_gradient""",
    join: """cat concat stack hstack vstack split chunk tensor_split unbind tile flip fliplr flipud roll
        rot90 meshgrid""",
    along: "gather take_along_dim scatter scatter_add",
    index: "index_select index_put take masked_fill masked_select nonzero repeat_interleave where",
    scatter: "index_add index_copy index_fill masked_scatter",
    triangle: "tril triu diag diag_embed diagonal trace",
    matmul: "matmul mm bmm mv dot outer inner addmm baddbmm einsum tensordot",
    sort: "sort argsort topk kthvalue",
    shuffle: "pixel_shuffle pixel_unshuffle channel_shuffle",
    softmax: "softmax log_softmax",
    activation: "dropout selu celu prelu",
    conv: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    pool: "max_pool1d max_pool2d max_pool3d avg_pool1d",
    norm: "batch_norm layer_norm group_norm instance_norm rms_norm",
    rnn: "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
}
FAMILIES = (  # and those without a top-level function, whose methods and functions come with them
    *PUBLIC,
    attention,
    convert,
    embedding,
    fold,
    grid_sample,
    interpolate,
    loss,
    methods,
    multihead,
    pad,
    windows,
)


def public() -> dict[str, Any]:
    """Every top-level function by name."""
    extra = {"absolute": arithmetic.abs, "negative": arithmetic.neg, "multiply": arithmetic.mul,
             "subtract": arithmetic.sub, "divide": arithmetic.div, "swapdims": movement.swapaxes}  # fmt: skip
    declared = {name: made.function for name, made in OPERATIONS.items()}
    listed = {name: getattr(module, name) for module, names in PUBLIC.items() for name in names.split()}
    return listed | declared | extra
