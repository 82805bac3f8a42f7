"""Tensors to and from the outside: Python numbers and lists, NumPy, DLPack, dtypes and devices, copies and pickles."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from funcnn.core import dtypes
from funcnn.core.aval import Missing, Tracer, is_concrete
from funcnn.core.context import ctx
from funcnn.core.device import HOST, device_of, devices, known_device
from funcnn.core.errors import DTypeError, GradientError, ShapeError
from funcnn.core.format import format_tensor
from funcnn.core.mutation import assign, rebound
from funcnn.core.primitive import layout
from funcnn.core.size import Size
from funcnn.core.tensor import Cell, Tensor, concrete, share, version, wrap
from funcnn.ops.base.dims import numel, size_args
from funcnn.ops.base.promote import require_floating, to_tensor
from funcnn.ops.base.structure import cast
from funcnn.ops.elementwise.arithmetic import add, mul
from funcnn.ops.elementwise.comparison import lt
from funcnn.ops.movement.views import clone, detach, same_numbers
from funcnn.ops.random import generator as generators
from funcnn.ops.random import keys as random
from funcnn.ops.tensor.creation import carried, empty, from_sequence_or_array, full, ones, tensor, zeros
from funcnn.ops.tensor.inplace import overwrite


def _new_tensor(cls: type, *args: Any) -> Tensor:
    """``Tensor(2, 3)``: uninitialised, of the default dtype; ``Tensor([1, 2])``: from data. Prefer ``tensor``/``empty``."""
    if len(args) == 1 and not isinstance(args[0], (int, np.integer)):
        return wrap(from_sequence_or_array(args[0], dtypes.default_float())._v, cls)
    return wrap(empty(size_args(args))._v, cls)


def item(self: Tensor) -> Any:
    """The only element, as a Python number. Raises ``ShapeError`` for more than one."""
    return concrete(self, "item() of", scalar=True).item()


def tolist(self: Tensor) -> Any:
    """Nested lists of Python numbers."""
    value = self._v
    if is_concrete(value) and ctx.stage is None:
        return devices[device_of(value)].copy_out(value).tolist()
    return concrete(self, "tolist() of").tolist()


def numpy(self: Tensor) -> np.ndarray:
    """The values as a NumPy array on the same memory. Raises ``GradientError`` for a tensor that requires grad."""
    if self.requires_grad:
        raise GradientError("numpy: the tensor requires grad and an array cannot; use .detach().numpy()")
    array = concrete(self, "numpy() of")
    share(self).exposed = True
    return array


def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    array = numpy(self)
    if copy is False and dtype is not None and np.dtype(dtype) != array.dtype:
        raise ValueError(f"__array__: a copy is needed to convert {array.dtype} to {np.dtype(dtype)}")
    return np.array(array, dtype=dtype, copy=copy or (dtype is not None and np.dtype(dtype) != array.dtype) or None)


def _dlpack(self: Tensor, **kwargs: Any) -> Any:
    return numpy(self).__dlpack__(**kwargs)


def to(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False, **ignored: Any) -> Tensor:
    """In another dtype, or on another device, or both as another tensor is. The tensor itself where nothing changes."""
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg._v.dtype, device_of(arg._v)
        elif isinstance(arg, str) and arg.split(":")[0] in ("cpu", "cuda", "mps", "meta", *devices):
            device = arg
        elif arg is not None and not isinstance(arg, bool):
            dtype = arg
    there = None if device is None else known_device(device)
    unknown = set(ignored) - {"non_blocking", "memory_format"}
    if unknown:
        raise TypeError(f"to: unexpected arguments {sorted(unknown)}")
    out = self if dtype is None else cast(self, dtypes.as_dtype(dtype))
    if there is not None and there != device_of(out._v):
        return carried(out, there)
    return clone(out) if copy and out is self else out


def size(self: Tensor, dim: int | None = None) -> Any:
    """The ``Size``, or the size of one dimension."""
    return self.shape if dim is None else self.shape[dim]


def _repr(self: Tensor) -> str:
    value = self._v
    if isinstance(value, Missing):
        return f"Tensor(unreadable: {value.owner})"
    if isinstance(value, Tracer) or ctx.stage is not None:
        name = value.owner.name if isinstance(value, Tracer) else "jit"
        return f"Tensor(traced by {name}, shape={tuple(value.shape)}, dtype={value.dtype})"
    suffixes = (f"grad_fn={self._node!r}",) if self._node is not None else ("requires_grad=True",) if self._rg else ()
    place = device_of(value)
    if place != HOST:
        suffixes = (f"device={place!r}", *suffixes)
    return format_tensor(devices[place].copy_out(value), suffixes=suffixes)


def _format(self: Tensor, spec: str) -> str:
    return format(item(self), spec) if spec and self.ndim == 0 else repr(self)


def _length(self: Tensor) -> int:
    if self.ndim == 0:
        raise TypeError("len() of a 0-d tensor")
    return self._v.shape[0]


def _iterate(self: Tensor) -> Any:
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter([self[i] for i in range(self._v.shape[0])])


def _contains(self: Tensor, value: Any) -> bool:
    return bool((self == value).any())


def _as_int(self: Tensor) -> int:
    return int(concrete(self, "int() of", scalar=True).item())


def _as_index(self: Tensor) -> int:
    array = concrete(self, "an index from", scalar=True)
    if array.dtype.kind not in "biu":
        raise DTypeError(f"only integer tensors of one element can be an index, got {array.dtype}")
    return int(array.item())


def _as_float(self: Tensor) -> float:
    return float(concrete(self, "float() of", scalar=True).item())


# ---- copies and pickles -----------------------------------------------------------------------------------------------
OWN = frozenset(Tensor.__annotations__)  # attributes of the box; what else it has, the user gave it


def _attributes(self: Tensor) -> dict:
    return {name: value for name, value in vars(self).items() if name not in OWN}


def _copy(self: Tensor) -> Tensor:
    """``copy.copy``: a leaf on the same memory, with what the user has attached."""
    out = wrap(concrete(self, "copy of"), type(self))
    out._cell, out._rg = share(self), self.requires_grad
    vars(out).update(_attributes(self))
    return out


def _deepcopy(self: Tensor, memo: dict) -> Tensor:
    """``copy.deepcopy``: what shares memory among the originals shares it among their copies."""
    if id(self) in memo:
        return memo[id(self)]
    if self._node is not None:
        raise GradientError("deepcopy: only leaf tensors can be copied deeply; use .detach().clone()")
    array, cell = concrete(self, "deepcopy of"), self._cell
    out = wrap(_copied(array) if cell is None or not cell.shared else _copied_memory(array, memo), type(self))
    memo[id(self)] = out
    if cell is not None and cell.shared:
        out._cell = memo.setdefault(id(cell), Cell())
        out._cell.shared = True
    out._rg = self._rg
    out._grad = None if self._grad is None else copy.deepcopy(self._grad, memo)
    vars(out).update({name: copy.deepcopy(value, memo) for name, value in _attributes(self).items()})
    return out


def _copied_memory(array: np.ndarray, memo: dict) -> np.ndarray:
    """The view ``array`` of a copy of all the memory that it is a view of; one copy for all of one ``deepcopy``."""
    root = array
    while type(root.base) is np.ndarray:
        root = root.base
    if root is array or not root.flags.forc:
        return copy.deepcopy(array, memo) if root is array else _copied(array)
    memory = copy.deepcopy(root, memo).reshape(-1, order="A")  # as it lies: a view
    offset = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    out = np.ndarray(array.shape, array.dtype, memory, offset, array.strides) if array.size else array.copy()
    out.flags.writeable = array.flags.writeable
    return out


def _packed(array: np.ndarray) -> tuple[np.ndarray, tuple, tuple]:
    """The numbers of ``array`` once each and contiguous, their order of axes, and the shape that they are spread to."""
    order = tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))
    once = array[tuple(slice(1) if step == 0 else slice(None) for step in array.strides)]
    return np.array(once.transpose(order), order="C"), order, array.shape


def _unpacked(array: np.ndarray, order: tuple, shape: tuple) -> np.ndarray:
    lying = array.transpose(np.argsort(order)) if order != tuple(range(array.ndim)) else array
    return lying if lying.shape == shape else np.broadcast_to(lying, shape)


def _copied(array: np.ndarray) -> np.ndarray:
    return _unpacked(*_packed(array))


def _rebuild(
    cls: type, array: np.ndarray, requires_grad: bool, order: Any = None, shape: Any = None, attributes: Any = ()
) -> Tensor:
    out = wrap(array if order is None else _unpacked(array, order, shape), cls)
    out._rg = requires_grad
    vars(out).update(attributes)
    return out


def _reduce(self: Tensor, protocol: Any) -> tuple:
    array, order, shape = _packed(concrete(self, "pickle of"))
    return _rebuild, (type(self), array, self.requires_grad, order, shape, _attributes(self))


# ---- data, strides, random fills ----------------------------------------------------------------------------------------
def _get_data(self: Tensor) -> Tensor:
    """The tensor without its history, on the same memory."""
    return detach(self)


def _set_data(self: Tensor, value: Any) -> None:
    """Rebind to the memory of ``value``, as PyTorch does; where a traced value goes to a box from outside, write it there."""
    new = to_tensor(value)
    if ctx.stage is not None or ctx.top is not None:
        if rebound(self, same_numbers(new)):
            return
        saved, ctx.grad = ctx.grad, False
        try:
            assign(self, cast(new, self._v.dtype), "data")
        finally:
            ctx.grad = saved
        return
    cell = share(new)
    cell.version = max(cell.version, version(self)) + 1  # what was recorded with the old values must notice
    self._v, self._cell, self._view = new._v, cell, None


def _strides(self: Tensor, dim: int | None = None) -> Any:
    """Elements to skip for the next index of each dimension."""
    array = layout(self)
    steps = tuple(step // array.itemsize for step in array.strides)
    return steps if dim is None else steps[dim]


def _drawn(name: str, draw: Any) -> Any:
    def method(self: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        return overwrite(self, cast(draw(self, generators.draw_key(generator), *args, **kwargs), self._v.dtype), name)

    method.__name__, method.__doc__ = name, f"Fill in place with random numbers (``{name}``)."
    return method


def _normal(t: Tensor, key: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    std = generators.deviation("normal_", std)
    return add(mul(random.normal_from(key, t._v.shape, require_floating("normal_", t)._v.dtype), std), mean)


def _uniform(t: Tensor, key: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    return random.uniform_from(key, t._v.shape, require_floating("uniform_", t)._v.dtype, a, b)


def _integers(t: Tensor, key: Tensor, low: int | None = None, to: int | None = None) -> Tensor:
    kind = t._v.dtype
    whole = 2 if kind.kind == "b" else 2**31 - 1 if kind.kind == "f" else min(2**31 - 1, np.iinfo(kind).max + 1)
    low, high = (0, whole if low is None else low) if to is None else (low or 0, to)
    if high <= low:
        raise ShapeError(f"random_: expected low < high, got [{low}, {high})")
    return random.randint_from(key, t._v.shape, low, high, dtypes.int64 if kind.kind in "fb" else kind)


def _bernoulli(t: Tensor, key: Tensor, p: Any = 0.5) -> Tensor:
    dtype = t._v.dtype if t._v.dtype.kind == "f" else dtypes.default_float()
    return lt(random.uniform_from(key, t._v.shape, dtype), random.probability("bernoulli_", p))


# ---- what a tensor is ---------------------------------------------------------------------------------------------------
def _dlpack_device(self: Tensor) -> tuple[int, int]:
    """The device as DLPack numbers it: 1 is the CPU."""
    return 1, 0


def dim(self: Tensor) -> int:
    """The number of dimensions."""
    return len(self._v.shape)


def _numel(self: Tensor) -> int:
    """The number of elements."""
    return numel(self._v.shape)


def element_size(self: Tensor) -> int:
    """The bytes of one element."""
    return self._v.dtype.itemsize


def is_floating_point(self: Tensor) -> bool:
    """Whether the dtype is a floating-point one."""
    return self._v.dtype.kind == "f"


def is_contiguous(self: Tensor) -> bool:
    """Whether the elements follow each other in memory in the order of their indices."""
    return layout(self).flags.c_contiguous


def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    return concrete(self, "data_ptr() of").ctypes.data


def cpu(self: Tensor) -> Tensor:
    """The tensor on the host."""
    return to(self, device=HOST)


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor with the dtype and the device of ``other``."""
    return to(self, other)


def detach_(self: Tensor) -> Tensor:
    """Give up the history, in place: the tensor becomes a leaf that asks for no gradient."""
    self._node, self._rg = None, False
    return self


# ---- conversions and new tensors like this one --------------------------------------------------------------------------
def _converted(name: str, dtype: np.dtype) -> Any:
    def method(self: Tensor) -> Tensor:
        return cast(self, dtype)

    method.__name__, method.__doc__ = name, f"The tensor with its elements converted to {dtype}."
    return method


def _made_like(name: str, make: Any, what: str) -> Any:
    def method(self: Tensor, *sizes: Any, dtype: Any = None, **kw: Any) -> Tensor:
        return make(*sizes, dtype=self._v.dtype if dtype is None else dtype, **{"device": self.device, **kw})

    method.__name__, method.__doc__ = (
        name,
        f"A tensor of these sizes {what}, with this dtype and device if none is given.",
    )
    return method


def new_full(self: Tensor, shape: Any, value: Any, dtype: Any = None, **kw: Any) -> Tensor:
    """A tensor of this shape filled with ``value``, with this dtype and device if none is given."""
    return full(shape, value, dtype=self._v.dtype if dtype is None else dtype, **{"device": self.device, **kw})


def new_tensor(self: Tensor, data: Any, dtype: Any = None) -> Tensor:
    """A tensor of ``data`` on this device, with this dtype if none is given."""
    return tensor(data, dtype=self._v.dtype if dtype is None else dtype, device=self.device)


def _nbytes(self: Tensor) -> int:
    """The bytes of all elements."""
    return numel(self._v.shape) * self._v.dtype.itemsize


def _attach() -> None:
    methods: dict[str, Any] = {
        "item": item, "tolist": tolist, "numpy": numpy, "__array__": _array, "__dlpack__": _dlpack, "to": to, "size": size,
        "__dlpack_device__": _dlpack_device, "dim": dim, "ndimension": dim, "numel": _numel, "nelement": _numel,
        "stride": _strides, "element_size": element_size, "is_floating_point": is_floating_point,
        "is_contiguous": is_contiguous, "cpu": cpu, "type_as": type_as, "data_ptr": data_ptr, "detach_": detach_,
        "__repr__": _repr, "__format__": _format, "__len__": _length, "__iter__": _iterate, "__contains__": _contains,
        "__int__": _as_int, "__index__": _as_index, "__float__": _as_float, "__copy__": _copy, "__deepcopy__": _deepcopy,
        "__reduce_ex__": _reduce, "__new__": staticmethod(_new_tensor), "new_full": new_full, "new_tensor": new_tensor,
        "normal_": _drawn("normal_", _normal), "uniform_": _drawn("uniform_", _uniform),
        "random_": _drawn("random_", _integers), "bernoulli_": _drawn("bernoulli_", _bernoulli), "is_cuda": False,
        "new_zeros": _made_like("new_zeros", zeros, "filled with 0"), "new_ones": _made_like("new_ones", ones, "filled with 1"),
        "new_empty": _made_like("new_empty", empty, "that is not initialised"),
        "data": property(_get_data, _set_data), "nbytes": property(_nbytes), "itemsize": property(element_size),
    }  # fmt: skip
    named = {
        "float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16, "long": dtypes.int64,
        "int": dtypes.int32, "short": dtypes.int16, "char": dtypes.int8, "byte": dtypes.uint8, "bool": dtypes.bool_,
    }  # fmt: skip
    methods.update({name: _converted(name, dtype) for name, dtype in named.items()})
    for name, method in methods.items():
        setattr(Tensor, name, method)


_attach()
__all__ = ["Size"]
