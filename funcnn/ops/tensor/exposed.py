"""Which functions of ``ops`` are functions of ``funcnn``, methods of tensors, or both: each name once, beside its module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

from funcnn.ops.elementwise import activation, arithmetic, closeness
from funcnn.ops.indexing import along, index, scatter, sort
from funcnn.ops.matmul import matmul
from funcnn.ops.movement import join, shuffle, triangle, windows
from funcnn.ops.movement import views as movement
from funcnn.ops.random import generator
from funcnn.ops.reduce import extrema, logsumexp, moments, scan, vector_norm
from funcnn.ops.reduce import sums as reduce
from funcnn.ops.softmax import softmax
from funcnn.ops.tensor import creation


class Names(NamedTuple):
    """The public names of a module, beside the operations that are declared as both (``base.registry``).

    both: functions of ``funcnn`` and methods. A method's first argument is the tensor; a trailing "_" asks for its in-place
    form as well.
    """

    both: str = ""
    functions: str = ""
    methods: str = ""


EXPOSED: dict[ModuleType, Names] = {
    creation: Names(functions="""as_tensor tensor from_numpy from_dlpack zeros ones empty full zeros_like ones_like empty_like
        full_like arange linspace logspace eye"""),
    generator: Names(functions="""Generator default_generator manual_seed initial_seed get_rng_state set_rng_state rand randn
        randint randperm rand_like randn_like randint_like normal bernoulli multinomial"""),
    closeness: Names("isclose allclose equal"),
    reduce: Names("nansum nanmean"),
    extrema: Names("max min argmax argmin median aminmax"),
    logsumexp: Names("logsumexp"),
    vector_norm: Names("norm"),
    moments: Names("var std", functions="var_mean std_mean"),
    scan: Names("cumsum_ cumprod_ cummax cummin logcumsumexp"),
    movement: Names("""reshape flatten unflatten squeeze unsqueeze transpose t permute movedim swapaxes narrow select
        broadcast_to ravel clone detach""", functions="stop_gradient", methods="view expand expand_as contiguous"),
    join: Names("split chunk tensor_split unbind tile flip fliplr flipud roll rot90",
        functions="cat concat stack hstack vstack meshgrid", methods="repeat"),
    along: Names("gather take_along_dim scatter_ scatter_add_"),
    index: Names("index_select index_put_ take masked_fill_ masked_select nonzero repeat_interleave", functions="where"),
    scatter: Names("index_add_ index_copy_ index_fill_ masked_scatter_"),
    triangle: Names("tril_ triu_ diag diag_embed diagonal trace"),
    matmul: Names("matmul mm bmm mv dot outer inner addmm_ baddbmm_", functions="einsum tensordot"),
    sort: Names("sort argsort topk kthvalue"),
    shuffle: Names(functions="pixel_shuffle pixel_unshuffle channel_shuffle"),
    softmax: Names("softmax log_softmax"),
    activation: Names(functions="dropout selu celu prelu"),
    windows: Names(methods="unfold"),
}  # fmt: skip
# Functions of ``funcnn`` without a method, by the modules below ``funcnn.ops`` that are imported when one is first named:
# with their kernels they would take a third of the time of ``import funcnn``.
LATER: dict[str, str] = {
    "conv.conv": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    "pool.pool": "max_pool1d max_pool2d max_pool3d avg_pool1d",
    "norm.norm": "batch_norm layer_norm group_norm instance_norm rms_norm",
    "recurrent.functions": "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
}
# Second names of functions that are methods as well.
SYNONYMS: dict[str, Callable] = {
    "absolute": arithmetic.abs, "negative": arithmetic.neg, "multiply": arithmetic.mul, "subtract": arithmetic.sub,
    "divide": arithmetic.div, "swapdims": movement.swapaxes,
}  # fmt: skip


def functions() -> Iterator[tuple[str, Callable]]:
    """Yields the functions of ``funcnn`` by name."""
    for module, names in EXPOSED.items():
        for listed in f"{names.both} {names.functions}".split():
            name = listed.rstrip("_")
            yield name, getattr(module, name)


def methods() -> Iterator[tuple[str, Callable, bool]]:
    """Yields the methods of tensors: the name, the function, and whether there is an in-place form."""
    for module, names in EXPOSED.items():
        for listed in f"{names.both} {names.methods}".split():
            name = listed.rstrip("_")
            yield name, getattr(module, name), listed.endswith("_")
