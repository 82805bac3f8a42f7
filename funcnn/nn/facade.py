"""``nn`` modules generated from the pure layers: signature, docstring, repr, parameters, buffers and forward.

A generated module holds a layer and its own slice of the parameter and state trees; ``forward`` is the layer's call on
them, and what the layer returns as new state is written into the buffers.
"""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields, replace
from typing import Any, ClassVar

from funcnn.core.aval import Tracer
from funcnn.core.context import ctx, running
from funcnn.core.mutation import assign
from funcnn.core.tensor import Tensor, wrap
from funcnn.layers.base import Layer, LayerList, no_state
from funcnn.layers.sequential import Sequential as PureSequential
from funcnn.nn.binding import trees
from funcnn.nn.containers import ModuleList, Sequential
from funcnn.nn.module import Module
from funcnn.nn.parameter import Parameter
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.movement.views import clone, detach
from funcnn.ops.random.generator import next_key


class LayerModule(Module):
    """A module that applies a layer. Of a composite layer, the layers inside are its submodules."""

    _layer: Layer
    _options: ClassVar[dict[str, str]] = {}  # constructor arguments by PyTorch's name, and the fields that hold them

    def _adopt(self, layer: Layer, params: dict, state: dict) -> None:
        """Register a layer's parameters, buffers and inner layers."""
        inner = layer.children()
        for name in dict.fromkeys((*layer.parameters, *(n for n in params if n not in inner))):
            self.register_parameter(name, Parameter(params[name]) if name in params else None)
        for name in dict.fromkeys((*layer.buffers, *(n for n in state if n not in inner))):
            self.register_buffer(name, to_tensor(state[name]) if state.get(name) is not None else None)
        for name, part in inner.items():
            self.add_module(name, module(part, params.get(name, {}), state.get(name, {})))
        if getattr(layer, "_freeze", False):
            self.requires_grad_(False)
        object.__setattr__(self, "_layer", layer)  # last: from now on its arguments are attributes, too

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The layer's output; its new state goes into the buffers."""
        params, state = trees(self, every=True)
        layer = self._layer
        key = next_key() if self.training and layer.needs_key else None
        result = layer(params, state, *inputs, training=self.training, key=key, **options)
        if type(result) is not tuple or len(result) != 2 or not isinstance(result[1], dict):
            raise no_state(layer, result)
        output, after = result
        if after is not state:
            pure = (
                ctx.top is not None and self._tied is not None
            )  # then what is differentiated goes on through the state
            with running(ctx.top, pure and ctx.grad):
                _store(self, after)
        return output

    applied = forward  # for the layers whose ``module_methods`` give ``forward`` a signature of its own

    def __getattr__(self, name: str) -> Any:
        """Parameters, buffers and modules; then the constructor's arguments, which the layer holds."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            field = self._options.get(name)
            layer = self.__dict__.get("_layer")
            if field is None or layer is None:
                raise
            return getattr(layer, field)

    def __setattr__(self, name: str, value: Any) -> None:
        held = (
            *self.__dict__.get("_parameters", ()),
            *self.__dict__.get("_buffers", ()),
            *self.__dict__.get("_modules", ()),
        )
        if name in self._options and name not in held and "_layer" in self.__dict__:
            object.__setattr__(self, "_layer", replace(self._layer, **{self._options[name]: value}))
        else:
            super().__setattr__(name, value)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *rest: Any) -> None:
        self._layer.upgrade(state_dict, prefix, local_metadata.get("version"), self._buffers)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def _identities(self) -> tuple:
        return (*super()._identities(), self._layer)

    def _structure(self) -> tuple:
        return (*super()._structure(), id(self._layer))

    def extra_repr(self) -> str:
        """As the layer prints."""
        return "" if self._modules else self._layer.extra_repr()

    def _get_name(self) -> str:
        return type(self._layer).__name__


def _store(module: Module, state: dict) -> None:
    """Write a layer's new state into the buffers."""
    for name, value in state.items():
        part = module._modules.get(name)
        if part is not None:
            _store(part, value)
        elif value is not module._buffers[name]:
            assign(module._buffers[name], value, f"{type(module).__name__}.{name}")  # type: ignore[arg-type]


def signature(layer: type) -> inspect.Signature:
    """PyTorch's constructor signature, from the layer's fields."""
    kinds = inspect.Parameter
    shown = []
    for f in fields(layer):
        default = kinds.empty if f.default is MISSING else f.default
        shown.append(kinds(torch_name(f), kinds.POSITIONAL_OR_KEYWORD, default=default, annotation=f.type))
    return inspect.Signature(shown)


def torch_name(f: Any) -> str:
    """The argument's name in PyTorch, where the field could not have it."""
    return f.metadata.get("torch", f.name)


def generate(layer: type) -> type[LayerModule]:
    """The module class for a pure layer."""
    shape = signature(layer)
    names = {torch_name(f): f.name for f in fields(layer)}

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        Module.__init__(self)
        made = layer(*args, **{names.get(k, k): v for k, v in kwargs.items()})
        self._adopt(made, *made.init(next_key() if made.parameters else None))

    body: dict[str, Any] = {
        "__init__": __init__,
        "__doc__": layer.__doc__,
        "__module__": "funcnn.nn",
        "_layer_type": layer,
        "_version": layer.version,  # type: ignore[attr-defined]
        **getattr(layer, "module_methods", {}),
    }
    if names:
        __init__.__signature__ = shape.replace(  # type: ignore[attr-defined]
            parameters=[inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *shape.parameters.values()]
        )
        body["__signature__"] = shape
    body.update({name: made for name, made in vars(layer).items() if isinstance(made, classmethod)})
    own = (*layer.parameters, *layer.buffers, "device", "dtype")  # type: ignore[attr-defined]
    body["_options"] = {given: name for given, name in names.items() if given not in own}
    return type(layer.__name__, (LayerModule,), body)


_classes: dict[type, type[LayerModule]] = {}


def generated(layer: type) -> type[LayerModule]:
    """The generated class of a layer type, made at its first use."""
    if layer not in _classes:
        _classes[layer] = generate(layer)
    return _classes[layer]


def module(layer: Any, params: dict, state: dict) -> Module:
    """A module for a pure layer that owns copies of ``params`` and ``state``; the inverse of ``pure``.

    For the layer that ``pure`` made of a module: a copy of that module.
    """
    stands_for = layer.as_module(params, state)
    if stands_for is not None:
        return stands_for
    if isinstance(layer, (PureSequential, LayerList)):
        out: Module = Sequential() if isinstance(layer, PureSequential) else ModuleList()
        for name, part in layer.layers:
            out.add_module(name, module(part, params.get(name, {}), state.get(name, {})))
        object.__setattr__(out, "_layer", layer)  # what ``pure`` gives back
        return out
    made: LayerModule = generated(type(layer)).__new__(generated(type(layer)))
    Module.__init__(made)
    made._adopt(layer, _copied(params), _copied(state))
    return made


def _copied(tree: dict) -> dict:
    return {k: _copied(v) if isinstance(v, dict) else owned(v) for k, v in tree.items()}


def owned(value: Any, like: Tensor | None = None) -> Tensor:
    """A copy to stand in the place of ``like``: its class, and whether it wants a gradient.

    Inside a transformation that differentiates ``value`` the copy stays connected to it.
    """
    t = to_tensor(value)
    copy = clone(t if isinstance(t._v, Tracer) else detach(t))
    if like is None:
        return copy
    box = wrap(copy._v, type(like))
    box._rg, box._born = like._rg, copy._born
    return box
