"""Pure layers: ``(params, state, x) -> (y, state)``. See ``layers.base`` for the protocol."""

from __future__ import annotations

from funcnn.layers.activation import GELU, Flatten, LeakyReLU, LogSoftmax, PReLU, ReLU, Sigmoid, Softmax, Tanh
from funcnn.layers.adaptive_pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from funcnn.layers.attention import MultiheadAttention
from funcnn.layers.base import KeyRequired, Layer, arg, document
from funcnn.layers.cell import GRUCell, LSTMCell, RNNCell
from funcnn.layers.conv import Conv1d, Conv2d, Conv3d
from funcnn.layers.custom import Custom
from funcnn.layers.dropout import Dropout
from funcnn.layers.embedding import Embedding
from funcnn.layers.fold import Fold, Unfold
from funcnn.layers.fractional_pool import FractionalMaxPool2d, FractionalMaxPool3d
from funcnn.layers.linear import Identity, Linear
from funcnn.layers.loss import CrossEntropyLoss, L1Loss, MSELoss, NLLLoss
from funcnn.layers.lrn import LocalResponseNorm
from funcnn.layers.norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from funcnn.layers.pool import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from funcnn.layers.recurrent import GRU, LSTM, RNN
from funcnn.layers.sequential import Sequential
from funcnn.layers.shuffle import ChannelShuffle, PixelShuffle, PixelUnshuffle
from funcnn.layers.unpool import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d
from funcnn.layers.upsample import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d

# The layers that have a generated module in ``funcnn.nn``: all of those above but Sequential, which has a container of its own.
GENERATED = tuple(
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, Layer) and value not in (Layer, Sequential)
)
for _layer in GENERATED:
    document(_layer)

__all__ = ["GENERATED", "KeyRequired", "Layer", "Sequential", "arg", "document", *(cls.__name__ for cls in GENERATED)]
