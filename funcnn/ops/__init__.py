"""Operations: primitives by family, with value, shape, gradient and batching rules, and PyTorch's names for them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from funcnn.ops import (
    activation,
    attention,
    closeness,
    conv,
    convert,
    creation,
    elementwise,
    embedding,
    fold,
    generator,
    grid_sample,
    index,
    interpolate,
    join,
    loss,
    math,
    matmul,
    methods,
    moments,
    movement,
    multihead,
    norm,
    pad,
    pool,
    reduce,
    rnn,
    scan,
    scatter,
    shuffle,
    softmax,
    sort,
    triangle,
    windows,
)

# What ``import funcnn`` offers beside the classes: PyTorch's top-level functions, each where its family stands.
PUBLIC: dict[ModuleType, str] = {
    creation: """as_tensor tensor from_numpy from_dlpack zeros ones empty full zeros_like ones_like empty_like full_like
        arange linspace logspace eye""",
    generator: """Generator default_generator manual_seed initial_seed get_rng_state set_rng_state rand randn randint
        randperm rand_like randn_like randint_like normal bernoulli multinomial""",
    elementwise: """add sub mul div floor_divide remainder fmod maximum minimum fmax fmin neg abs sign positive square
        reciprocal eq ne lt le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor
        bitwise_not bitwise_left_shift bitwise_right_shift isnan isinf isfinite where clamp clip clone detach
        stop_gradient true_divide""",
    closeness: "isclose allclose equal",
    math: """ceil floor trunc round frac fix exp exp2 expm1 log log2 log10 log1p sqrt rsqrt pow logaddexp hypot sin cos tan
        asin acos atan atan2 sinh cosh tanh asinh acosh atanh erf erfc erfinv sigmoid relu
        lerp""",
    reduce: """sum mean prod max min amax amin argmax argmin any all logsumexp norm count_nonzero
        nansum nanmean median aminmax trace""",
    moments: "var std var_mean std_mean",
    scan: "cumsum cumprod cummax cummin logcumsumexp",
    movement: """reshape flatten unflatten squeeze unsqueeze transpose t permute movedim swapaxes narrow select
        broadcast_to ravel""",
    join: """cat concat stack hstack vstack split chunk tensor_split unbind tile repeat_interleave flip fliplr flipud roll
        rot90 meshgrid""",
    index: "gather index_select index_put take take_along_dim masked_fill masked_select nonzero",
    scatter: "scatter scatter_add index_add index_copy index_fill masked_scatter",
    triangle: "tril triu diag diag_embed diagonal",
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
FAMILIES = (
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
    extra = {"absolute": elementwise.abs, "negative": elementwise.neg, "multiply": elementwise.mul,
             "subtract": elementwise.sub, "divide": elementwise.div, "swapdims": movement.swapaxes}  # fmt: skip
    return {name: getattr(module, name) for module, names in PUBLIC.items() for name in names.split()} | extra
