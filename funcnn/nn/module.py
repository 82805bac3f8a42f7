"""Module: the base of everything that holds parameters and has a ``forward``, with PyTorch's behaviour.

What it holds is registered by assignment (here), walked (``traversal``), saved and loaded (``state``), wrapped by hooks
(``hooks``) and can be swapped for other tensors, which makes any Module a pure function (``binding``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from funcnn.core import dtypes
from funcnn.core.aval import Tracer, is_concrete
from funcnn.core.context import Scope, ctx, running
from funcnn.core.device import refuse_others
from funcnn.core.errors import TracerError, locate
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor
from funcnn.nn.binding import bound
from funcnn.nn.hooks import Hooks
from funcnn.nn.parameter import Buffer, Parameter
from funcnn.nn.state import Stateful
from funcnn.nn.traversal import Traversal
from funcnn.ops.base.structure import cast
from funcnn.ops.movement.views import detach
from funcnn.ops.tensor.creation import zeros_like

_HOOK_TABLES = (
    "_forward_pre_hooks", "_forward_hooks", "_state_dict_pre_hooks", "_state_dict_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
_DEVICES = ("cpu", "cuda", "mps", "meta")


class Module(Traversal, Hooks, Stateful):
    """Base class of all modules: subclass it, assign parameters and submodules in ``__init__``, define ``forward``."""

    training: bool
    _tied: set[str] | None = None  # of a bound clone: names that stand for a tensor given elsewhere

    def __init__(self) -> None:
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={}, _non_persistent_buffers_set=set())
        self.__dict__.update({table: OrderedDict() for table in _HOOK_TABLES})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass that is called defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if Scope.wanted:
                if ctx.stage is not None and self._tied is None:
                    ctx.stage.guard((id(self), "structure"), self._structure, self._identities())
                with Scope(self._path_in_call(), self):
                    return self._call_hooked(args, kwargs)
            if self._forward_pre_hooks or self._forward_hooks:
                return self._call_hooked(args, kwargs)
            return self.forward(*args, **kwargs)
        except Exception as error:
            self._locate(error, args)
            raise

    def _locate(self, error: Any, args: tuple) -> None:
        """Name in an error's message the module inside this one where it happened."""
        inner = getattr(error, "_module", None)
        name = next((path for path, part in self.named_modules() if part is inner), "")
        locate(error, name, self, args[0] if args else None)
        with suppress(AttributeError):  # an exception that takes no attributes
            error._module = self

    # ---- registration -------------------------------------------------------------------------------------------------
    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter; None reserves the name. Raises ``TypeError``, ``KeyError`` for a bad or taken name."""
        self._check_name("parameter", "_parameters", name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' (nn.Parameter or None required)"
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained; ``persistent``: it belongs to ``state_dict``."""
        self._check_name("buffer", "_buffers", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (Tensor or None required)"
            )
        self._buffers[name] = tensor
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name that need not be an identifier."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", "_modules", name)
        self._modules[name] = module

    register_module = add_module

    def _check_name(self, kind: str, table: str, name: str) -> None:
        if table not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in self.__dict__[table]:
            raise KeyError(f"attribute '{name}' already exists")

    # ---- attributes ---------------------------------------------------------------------------------------------------
    def __getattr__(self, name: str) -> Any:
        held = self.__dict__
        if "_parameters" in held:  # absent before __init__ and while unpickling
            for table in (held["_parameters"], held["_buffers"], held["_modules"]):
                if name in table:
                    return table[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        held = self.__dict__
        if isinstance(value, Parameter):
            self._claim("parameters", name, "_parameters")
            self.register_parameter(name, value)
        elif name in held.get("_parameters", ()):
            self._require_none(name, value, "parameter", "nn.Parameter or None")
            held["_parameters"][name] = None
        elif isinstance(value, Module):
            self._claim("module", name, "_modules")
            held["_modules"][name] = value
        elif name in held.get("_modules", ()):
            self._require_none(name, value, "child module", "nn.Module or None")
            held["_modules"][name] = None
        elif isinstance(value, Buffer):
            self.register_buffer(name, value, value.persistent)
        elif name in held.get("_buffers", ()):
            if not isinstance(value, Tensor):
                self._require_none(name, value, "buffer", "nn.Buffer, Tensor or None")
            self._refuse_escape(name, value)
            held["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def _require_none(self, name: str, value: Any, kind: str, expected: str) -> None:
        if value is not None:
            raise TypeError(f"cannot assign '{type(value).__name__}' as {kind} '{name}' ({expected} expected)")

    def _refuse_escape(self, name: str, value: Any) -> None:
        """A traced value must not stay behind in a module from outside; a bound clone is thrown away with its trace."""
        held = self._buffers[name]
        outside = held is not None and is_concrete(held._v) and self._tied is None
        if outside and value is not None and isinstance(value._v, Tracer):
            raise TracerError(
                f"{type(self).__name__}: buffer '{name}' was made outside {value._v.owner.name} and would keep a tensor "
                f"traced inside it; write the values with self.{name}.copy_(...), or make the module pure first"
            )

    def _claim(self, kind: str, name: str, table: str) -> None:
        """Take a name away from whatever else holds it."""
        held = self.__dict__
        if table not in held:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        held.pop(name, None)
        for other in ("_parameters", "_buffers", "_modules"):
            if other != table:
                held[other].pop(name, None)
        held["_non_persistent_buffers_set"].discard(name)

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._buffers, *self._modules}
        return sorted(name for name in names if not name[:1].isdigit())

    # ---- modes --------------------------------------------------------------------------------------------------------
    def train(self, mode: bool = True) -> Any:
        """Set training (or, with False, evaluation) mode here and below; return the module."""
        if not isinstance(mode, bool):
            raise ValueError(f"training mode is expected to be boolean, got {mode!r}")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Any:
        """Set evaluation mode here and below; return the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Ask for, or give up, gradients of all parameters; return the module."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or with ``set_to_none=False`` overwrite them with zeros."""
        for param in self.parameters():
            if set_to_none:
                param.grad = None  # not read first: a trace then holds with and without a gradient before it
            elif (held := param.grad) is not None:
                held._node, held._rg = None, False
                with running(ctx.top, False):
                    assign(held, zeros_like(held), "zero_")

    # ---- dtypes and devices -------------------------------------------------------------------------------------------
    def to(self, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False) -> Any:
        """Convert floating-point parameters and buffers in place, to a dtype or that of a tensor; return the module.

        device: may be given and must be ``cpu``. Raises ``TypeError`` for a dtype that is not floating-point.
        """
        for arg in args:
            if isinstance(arg, Tensor):
                dtype = arg.dtype
            elif isinstance(arg, str) and arg.split(":")[0] in _DEVICES:
                device = arg
            elif arg is not None and not isinstance(arg, bool):
                dtype = arg
        if device is not None:
            refuse_others(device)
        if dtype is None:
            return self
        wanted = dtypes.as_dtype(dtype)
        if wanted.kind != "f":
            raise TypeError(f"to: a module can only be converted to a floating-point dtype, got {wanted}")
        return self._apply(lambda t: cast(t, wanted) if t._v.dtype.kind == "f" else t)

    def type(self, dst_type: Any) -> Any:
        """Convert all parameters and buffers, integer ones included; return the module."""
        wanted = dtypes.as_dtype(dst_type)
        return self._apply(lambda t: cast(t, wanted))

    def half(self) -> Any:
        """``to(float16)``."""
        return self.to(dtypes.float16)

    def float(self) -> Any:
        """``to(float32)``."""
        return self.to(dtypes.float32)

    def double(self) -> Any:
        """``to(float64)``."""
        return self.to(dtypes.float64)

    def cpu(self) -> Any:
        """The module itself: its memory is the CPU's."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Any:
        """Replace every parameter's value (and gradient) and every buffer by ``fn`` of it; parameters keep their boxes."""
        for child in self.children():
            child._apply(fn)
        for param in self._parameters.values():
            if param is not None:
                _rebind(param, fn)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    # ---- text ---------------------------------------------------------------------------------------------------------
    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses besides submodules; may have several lines."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        own = extra.split("\n") if extra else []
        below = [f"({name}): {indented(repr(child))}" for name, child in self._modules.items()]
        if len(own) == 1 and not below:
            return f"{self._get_name()}({own[0]})"
        return block(self._get_name(), own + below)

    # ---- transformations ----------------------------------------------------------------------------------------------
    def _identities(self) -> tuple:
        """The objects that a trace of this module knows by their identity."""
        return (*self._parameters.values(), *self._buffers.values(), *self._modules.values())

    def _structure(self) -> tuple:
        """The Python-level facts that a trace of this module depends on: mode, identities, hooks, frozen parameters."""
        parameters = self._parameters.values()
        frozen = [p is not None and not p._rg for p in parameters] if parameters else ()
        held = map(id, (*parameters, *self._buffers.values(), *self._modules.values()))
        return self.training, frozen, [*held], [*self._forward_pre_hooks], [*self._forward_hooks]

    def _bound(self, params: dict, state: dict) -> Any:
        """A clone that holds these tensors, see ``binding.bound``."""
        return bound(self, params, state)


def indented(text: str) -> str:
    """A submodule's repr, its lines after the first two columns in."""
    return text.replace("\n", "\n  ")


def block(name: str, lines: list[str]) -> str:
    """``name(...)`` with one entry a line."""
    return f"{name}(\n  " + "\n  ".join(lines) + "\n)" if lines else f"{name}()"


def _rebind(param: Tensor, fn: Callable[[Tensor], Tensor]) -> None:
    """Give a parameter's box another value, of another dtype if need be; its old memory is left alone."""
    new = fn(detach(param))
    if new._v is param._v:
        return
    if ctx.stage is not None or not is_concrete(new._v):
        raise TracerError(
            "to: a module cannot be converted inside a transformation; convert it before calling jit or grad"
        )
    param._v, param._cell, param._view = new._v, None, None
    if param._grad is not None:
        param._grad = detach(fn(param._grad))
