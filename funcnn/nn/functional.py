"""``torch.nn.functional``'s names for the operations of neural networks."""

from __future__ import annotations

from functools import partial

from funcnn.ops.attention.attention import scaled_dot_product_attention
from funcnn.ops.attention.multihead import multi_head_attention_forward
from funcnn.ops.conv.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from funcnn.ops.conv.fold import fold, unfold
from funcnn.ops.elementwise.activation import (
    celu,
    dropout,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    silu,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from funcnn.ops.elementwise.math import sigmoid, tanh
from funcnn.ops.indexing.embedding import embedding
from funcnn.ops.indexing.onehot import one_hot
from funcnn.ops.matmul.matmul import linear
from funcnn.ops.movement.pad import pad
from funcnn.ops.movement.shuffle import channel_shuffle, pixel_shuffle, pixel_unshuffle
from funcnn.ops.norm.lrn import local_response_norm
from funcnn.ops.norm.norm import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from funcnn.ops.pool.adaptive import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
)
from funcnn.ops.pool.fractional import fractional_max_pool2d, fractional_max_pool3d
from funcnn.ops.pool.lp import lp_pool1d, lp_pool2d, lp_pool3d
from funcnn.ops.pool.pool import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from funcnn.ops.pool.unpool import max_unpool1d, max_unpool2d, max_unpool3d
from funcnn.ops.sampling.grid_sample import affine_grid, grid_sample
from funcnn.ops.sampling.interpolate import interpolate
from funcnn.ops.softmax.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from funcnn.ops.softmax.softmax import log_softmax, softmax, softmin

celu_ = partial(celu, inplace=True)
elu_ = partial(elu, inplace=True)
hardtanh_ = partial(hardtanh, inplace=True)
leaky_relu_ = partial(leaky_relu, inplace=True)
relu_ = partial(relu, inplace=True)
selu_ = partial(selu, inplace=True)
threshold_ = partial(threshold, inplace=True)

__all__ = sorted(name for name, value in list(globals().items()) if callable(value) and name != "partial")
