"""Rows of convolution, normalization, softmax, activations and losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from funcnn.ops.norm.norm import follow
from funcnn.ops.tensor.creation import as_tensor
from tests.cases.both import both
from tests.cases.case import Arr, Case

_BATCH = np.array([0.5, -1.0, 2.0])  # the statistics of a batch, which are constants to gradients
_SEEN = as_tensor(_BATCH)

LOOSE = {"float32": 2e-5, "float64": 1e-11}


def _f(name: str, *args: Any, **kwargs: Any) -> Any:
    """The functional ``name`` of either namespace on the tensors, then these arguments."""
    return lambda m, *tensors: getattr(m.nn.functional, name)(*tensors, *args, **kwargs)


def _conv(id: str, name: str, x: tuple, w: tuple, bias: int = 0, **where: Any) -> Case:
    inputs = [Arr(x), Arr(w)] + ([Arr((bias,))] if bias else [])
    return both(id, _f(name, **where), *inputs, rtol=LOOSE)


X = Arr((2, 3, 5, 6), distinct=True)
ROW = Arr((3, 5))
SIGNED = Arr((3, 4), 0.2, 2.0)
LOGITS, CLASSES = Arr((4, 5)), Arr((4,), 0, 5, "int64")
IMAGES, PIXELS = Arr((2, 3, 2, 2)), Arr((2, 2, 2), 0, 3, "int64")
IGNORING = np.array([1, -100, 4, 0])

ROWS = [
    _conv("conv1d", "conv1d", (2, 3, 8), (4, 3, 3), 4, padding=1),
    _conv("conv2d", "conv2d", (2, 3, 6, 7), (4, 3, 3, 2), 4),
    _conv("conv2d_strided", "conv2d", (2, 2, 7, 6), (3, 2, 3, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    _conv("conv2d_groups", "conv2d", (2, 4, 5, 5), (6, 2, 3, 3), 6, groups=2, padding=1),
    _conv("conv2d_depthwise", "conv2d", (2, 3, 5, 5), (3, 1, 3, 3), groups=3, padding="same"),
    _conv("conv2d_depthwise_strided", "conv2d", (2, 8, 3, 4), (8, 1, 3, 3), groups=8, stride=2, padding=1),
    _conv("conv2d_pointwise", "conv2d", (2, 3, 2, 4), (8, 3, 1, 1), 8),
    _conv("conv2d_pointwise_strided", "conv2d", (2, 4, 5, 3), (4, 2, 1, 1), groups=2, stride=(2, 1)),
    _conv("conv2d_stride_over_kernel", "conv2d", (1, 2, 7, 7), (2, 2, 2, 2), stride=3),
    _conv("conv2d_same_even", "conv2d", (1, 2, 5, 4), (2, 2, 2, 3), padding="same"),
    _conv("conv2d_unbatched", "conv2d", (2, 5, 5), (3, 2, 3, 3), 3),
    _conv("conv3d", "conv3d", (1, 2, 4, 4, 3), (3, 2, 2, 3, 2), 3, padding=1),
    _conv("conv_transpose1d", "conv_transpose1d", (2, 3, 5), (3, 4, 3), 4, stride=2, padding=1, output_padding=1),
    _conv("conv_transpose2d", "conv_transpose2d", (2, 4, 3, 3), (4, 2, 3, 3), stride=2, padding=1, output_padding=1, groups=2),
    _conv("conv_transpose3d", "conv_transpose3d", (1, 2, 2, 3, 2), (2, 2, 2, 2, 2), dilation=2),
    both("batch_norm_training", lambda m, x, w, b: m.nn.functional.batch_norm(x, None, None, w, b, training=True),
         Arr((4, 3, 2, 2)), Arr((3,)), Arr((3,)), rtol=LOOSE),
    both("batch_norm_evaluation", lambda m, x, mu, var, w, b: m.nn.functional.batch_norm(x, mu, var, w, b),
         Arr((4, 3, 2)), Arr((3,)), Arr((3,), 0.5, 2.0), Arr((3,)), Arr((3,)), rtol=LOOSE),
    Case("running_statistics", lambda mean, var: tuple(follow((mean, var), (_SEEN, _SEEN), 0.1, (1.0, 1.5))),
         (Arr((3,)), Arr((3,))), numpy=lambda mean, var: (0.9 * mean + 0.1 * _BATCH, 0.9 * var + 0.15 * _BATCH),
         dtypes=("float64",)),
    both("layer_norm", lambda m, x, w, b: m.nn.functional.layer_norm(x, (3, 4), w, b), Arr((2, 3, 4)), Arr((3, 4)),
         Arr((3, 4)), rtol=LOOSE),
    both("group_norm", lambda m, x, w, b: m.nn.functional.group_norm(x, 2, w, b), Arr((2, 4, 3)), Arr((4,)), Arr((4,)),
         rtol=LOOSE),
    both("instance_norm", lambda m, x: m.nn.functional.instance_norm(x), Arr((2, 3, 5)), rtol=LOOSE),
    both("instance_norm_affine", lambda m, x, w, b: m.nn.functional.instance_norm(x, None, None, w, b), Arr((2, 3, 2, 3)),
         Arr((3,)), Arr((3,)), rtol=LOOSE),
    both("rms_norm", lambda m, x, w: m.nn.functional.rms_norm(x, (4,), w), Arr((3, 4)), Arr((4,)), rtol=LOOSE),
    both("rms_norm_plain", lambda m, x: m.nn.functional.rms_norm(x, (2, 3), eps=0.1), Arr((4, 2, 3)), rtol=LOOSE),
    both("layer_norm_plain", lambda m, x: m.nn.functional.layer_norm(x, (4,)), Arr((3, 4)), rtol=LOOSE),
    both("layer_norm_weight", lambda m, x, w: m.nn.functional.layer_norm(x, (4,), w), Arr((2, 3, 4)), Arr((4,)), rtol=LOOSE),
    both("layer_norm_bias", lambda m, x, b: m.nn.functional.layer_norm(x, (4,), None, b), Arr((3, 4)), Arr((4,)), rtol=LOOSE),
    both("group_norm_rows", lambda m, x, w: m.nn.functional.group_norm(x, 3, w), Arr((2, 6)), Arr((6,)), rtol=LOOSE),
    both("batch_norm_rows", lambda m, x, w: m.nn.functional.batch_norm(x, None, None, w, training=True), Arr((4, 3)),
         Arr((3,)), rtol=LOOSE),
    both("local_response_norm", _f("local_response_norm", 3, 0.5, 0.6, 1.5), Arr((2, 5, 3)), rtol=LOOSE),
    both("local_response_norm_even", _f("local_response_norm", 2, 0.4), Arr((2, 3, 2, 2)), rtol=LOOSE),
    both("softmax", _f("softmax", 1), ROW, rtol=LOOSE),
    both("softmax_middle", _f("softmax", 1), Arr((2, 3, 4)), rtol=LOOSE),
    both("log_softmax", _f("log_softmax", -1), ROW, rtol=LOOSE),
    both("softmin", _f("softmin", 0), ROW, rtol=LOOSE),
    both("log_softmax_middle", _f("log_softmax", 1), Arr((2, 3, 4)), rtol=LOOSE),
    both("cross_entropy_sum", _f("cross_entropy", reduction="sum"), IMAGES, PIXELS, rtol=LOOSE),
    both("cross_entropy", _f("cross_entropy"), LOGITS, CLASSES, rtol=LOOSE),
    both("cross_entropy_none", _f("cross_entropy", reduction="none"), IMAGES, PIXELS, rtol=LOOSE),
    both("cross_entropy_ignored", _f("cross_entropy"), LOGITS, IGNORING, rtol=LOOSE, vmap=False),
    both("cross_entropy_weighted", lambda m, x, t, w: m.nn.functional.cross_entropy(x, t, w, label_smoothing=0.1),
         LOGITS, CLASSES, Arr((5,), 0.5, 2.0), rtol=LOOSE, vmap=False, grad=False),
    both("cross_entropy_smoothed", _f("cross_entropy", label_smoothing=0.2, reduction="sum"), LOGITS, CLASSES, rtol=LOOSE),
    both("cross_entropy_probabilities", lambda m, x, p: m.nn.functional.cross_entropy(x, m.softmax(p, 1)), LOGITS, LOGITS,
         rtol=LOOSE),
    both("cross_entropy_vector", _f("cross_entropy"), Arr((5,)), Arr((), 0, 5, "int64"), rtol=LOOSE),
    both("nll_loss", _f("nll_loss"), LOGITS, CLASSES, rtol=LOOSE),
    both("nll_loss_options", lambda m, x, w: m.nn.functional.nll_loss(x, m.tensor(IGNORING), w, reduction="sum"),
         LOGITS, Arr((5,), 0.5, 2.0), rtol=LOOSE, grad=False, vmap=False),
    both("mse_loss", _f("mse_loss"), ROW, ROW),
    both("l1_loss", _f("l1_loss", reduction="sum"), ROW, Arr((3, 5), distinct=True), rtol=LOOSE),
    both("smooth_l1_loss", _f("smooth_l1_loss", beta=0.7), ROW, ROW, rtol=LOOSE),
    both("huber_loss", _f("huber_loss", delta=0.7), ROW, ROW, rtol=LOOSE),
    both("binary_cross_entropy", _f("binary_cross_entropy"), Arr((3, 4), 0.1, 0.9), Arr((3, 4), 0.1, 0.9), rtol=LOOSE),
    both("binary_cross_entropy_with_logits", _f("binary_cross_entropy_with_logits"), ROW, Arr((3, 5), 0.1, 0.9), rtol=LOOSE),
    both("binary_cross_entropy_options", lambda m, x, t, w: m.nn.functional.binary_cross_entropy_with_logits(
         x, t, w, pos_weight=w + 1.0, reduction="sum"), ROW, Arr((3, 5), 0.1, 0.9), Arr((5,), 0.5, 2.0), rtol=LOOSE),
    both("kl_div_log_target", _f("kl_div", reduction="sum", log_target=True), ROW, ROW, rtol=LOOSE),
    both("kl_div", _f("kl_div", reduction="batchmean"), ROW, Arr((3, 5), 0.1, 0.9), rtol=LOOSE),
    *[both(name, _f(name), SIGNED, rtol=LOOSE)
      for name in ("gelu", "elu", "selu", "celu", "silu", "mish", "softplus", "softsign", "tanhshrink", "logsigmoid")],
    *[both(f"{name}_below", lambda m, x, name=name: getattr(m.nn.functional, name)(-x), SIGNED, rtol=LOOSE)
      for name in ("gelu", "elu", "selu", "celu", "silu", "mish", "softplus", "leaky_relu", "logsigmoid")],
    both("gelu_tanh", _f("gelu", approximate="tanh"), SIGNED, rtol=LOOSE),
    both("hard_family", lambda m, x: [getattr(m.nn.functional, name)(x * 1.7) for name in
         ("hardtanh", "relu6", "hardsigmoid", "hardswish", "hardshrink", "softshrink")], Arr((3, 4), distinct=True), rtol=LOOSE),
    both("prelu", _f("prelu"), Arr((2, 3, 2), distinct=True), Arr((3,))),
    both("prelu_one", _f("prelu"), Arr((2, 3, 2), distinct=True), Arr((1,))),
    both("threshold", _f("threshold", 0.1, 2.0), Arr((3, 4), distinct=True)),
    both("glu", _f("glu", 1), Arr((3, 4)), rtol=LOOSE),
]  # fmt: skip
