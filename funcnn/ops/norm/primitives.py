"""The primitives of normalization: forward with weight and bias inside, and the whole gradient in one.

Inputs are x, then none, a weight, or a weight and a bias; outputs y and, unless ``residuals`` is False, mean, rstd and, for
batch and group norm, the biased variance. The gradient takes dy, x, mean, rstd and the weight if there is one, and gives dx
(and dweight, dbias):

    dx = rstd * (dy * weight - mean(dy * weight) - xhat * mean(dy * weight * xhat)),  xhat = (x - mean) * rstd

It is differentiated a second time through the composition of this formula.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce as fold_left
from typing import Any, NamedTuple

from funcnn.core.aval import Aval
from funcnn.core.primitive import Primitive
from funcnn.core.tensor import Tensor
from funcnn.kernels.cpu.norm import launch
from funcnn.kernels.implementation import Implementation
from funcnn.ops.base import costs
from funcnn.ops.base.batching import all_batched, merge_batch, merge_channels, split_batch, split_channels
from funcnn.ops.base.dims import numel
from funcnn.ops.base.promote import require_kernel_float, require_same_dtype
from funcnn.ops.base.structure import sum_p
from funcnn.ops.elementwise.arithmetic import add, mul, neg, square, sub
from funcnn.ops.movement.views import expand, reshape


class Units(NamedTuple):
    """Says how x is seen so that statistics and weights broadcast: the axes that each is one value for, and its shape there."""

    shape: tuple
    stat_axes: tuple
    stat_shape: tuple
    weight_axes: tuple
    weight_shape: tuple

    def full(self, t: Tensor) -> Tensor:
        """Returns x, or a tensor like it, in that shape."""
        return reshape(t, self.shape)

    def stat(self, t: Tensor) -> Tensor:
        """Returns a statistic in that shape."""
        return reshape(t, self.stat_shape)

    def weight(self, t: Tensor) -> Tensor:
        """Returns a weight or bias in that shape."""
        return reshape(t, self.weight_shape)

    def stat_sum(self, t: Tensor) -> Tensor:
        """Returns the sum over each unit."""
        return self.stat(sum_p(t, axes=self.stat_axes))

    def mean(self, t: Tensor) -> Tensor:
        """Returns the mean over each unit."""
        return mul(self.stat_sum(t), self.share)

    @property
    def share(self) -> float:
        """Returns 1 over the elements of a unit."""
        return 1.0 / max(numel(tuple(self.shape[axis] for axis in self.stat_axes)), 1)


def _batch_view(shape: tuple, groups: int) -> Units:
    """Returns the units of (N, C, ...): of batch norm where ``groups`` is 0, else of group norm."""
    n, c, *rest = shape
    s = numel(tuple(rest))
    if not groups:
        return Units((n, c, s), (0, 2), (1, c, 1), (0, 2), (1, c, 1))
    k = c // groups
    return Units((n, groups, k, s), (2, 3), (n, groups, 1, 1), (0, 3), (1, groups, k, 1))


def _row_view(shape: tuple) -> Units:
    n, g, k = shape
    return Units(shape, (2,), (n, g, 1), (0,), (1, g, k))


def _total(parts: list[Tensor]) -> Tensor | None:
    return fold_left(add, parts) if parts else None


def checked(name: str, x: Any, *rest: Any) -> None:
    """Raises ``DTypeError`` unless x is float32 or float64 and the rest like it."""
    require_kernel_float(name, x)
    require_same_dtype(name, x, *rest)


class Family(NamedTuple):
    """Makes one normalisation: its forward primitive, its gradient, and their rules.

    ``grouping`` in the rules is empty, or has the number of ``groups`` of channels (0: batch norm's).
    """

    name: str
    view: Callable
    stats: int  # how many statistics there are: mean, rstd and perhaps var
    ways: tuple[Implementation, ...]
    ways_grad: tuple[Implementation, ...]
    centred: bool = True

    def primitives(self) -> tuple[Primitive, Primitive]:
        """Returns the forward primitive and its gradient."""
        grad = Primitive(
            f"{self.name}_grad", self._grad_shape, self.ways_grad, multiple=True,
            vjp=self._grad_vjp, batch=lambda *args, **grouping: self._grad_batch(grad, *args, **grouping), flops=costs.each(11),
        )  # fmt: skip
        forward = Primitive(
            self.name, self._shape, self.ways, keeps="io", multiple=True, flops=costs.each(7),
            vjp=lambda *args, **grouping: self._vjp(grad, *args, **grouping),
            batch=lambda *args, **grouping: self._batch(forward, *args, **grouping),
            unused=lambda used, params: None if any(used[1:]) else (forward, {**params, "residuals": False}),
        )  # fmt: skip
        return forward, grad

    def stat_shape(self, shape: tuple, **grouping: int) -> tuple:
        """Returns (C,) for batch norm, else (N, G)."""
        view = self.view(shape, **grouping)
        return view.stat_shape[:2] if view.stat_axes[0] else view.stat_shape[1:2]

    def _shape(self, x: Any, *affine: Any, eps: float, residuals: bool = True, **grouping: int) -> tuple:
        checked(self.name, x, *affine)
        stat = Aval(self.stat_shape(tuple(x.shape), **grouping), x.dtype)
        return (Aval(tuple(x.shape), x.dtype), *[stat] * self.stats * residuals)

    def _grad_shape(self, dy: Any, x: Any, mean: Any, rstd: Any, *weight: Any, **grouping: int) -> tuple:
        checked(f"{self.name}_grad", dy, x, mean, rstd, *weight)
        return (Aval(tuple(x.shape), x.dtype), *[Aval(tuple(w.shape), x.dtype) for w in weight for _ in range(2)])

    # ---- derivatives --------------------------------------------------------------------------------------------------
    def _vjp(
        self, grad: Primitive, g: list, ins: list, outs: list, eps: float, residuals: bool = True, **grouping: int
    ) -> tuple:
        x, *affine = ins
        mean, rstd = outs[1:3]
        parts, dweights = [], [None, None]
        if g[0] is not None:
            dx, *given = grad(g[0], x, mean, rstd, *affine[:1], **grouping)
            parts, dweights = [dx], given
        slopes = [g[slot] for slot in range(1, 1 + self.stats)]
        parts += self._through_stats(slopes, x, mean, rstd, **grouping)
        return (_total(parts), *dweights)[: len(ins)]

    def _through_stats(self, slopes: list, x: Tensor, mean: Tensor, rstd: Tensor, **grouping: int) -> list[Tensor]:
        """Returns what cotangents of mean, rstd and var add to dx."""
        dmean, drstd, dvar = [*slopes, None][:3]
        if dmean is None and drstd is None and dvar is None:
            return []
        view = self.view(tuple(x._v.shape), **grouping)
        along = [] if drstd is None else [neg(mul(mul(drstd, rstd), square(rstd)))]
        if dvar is not None:
            along.append(mul(dvar, 2.0))
        parts = [] if dmean is None else [expand(view.stat(mul(dmean, view.share)), view.shape)]
        if along:
            off = sub(view.full(x), view.stat(mean)) if self.centred else view.full(x)
            parts.append(mul(off, view.stat(mul(_total(along), view.share))))
        return [reshape(part, x._v.shape) for part in parts]

    def _grad_vjp(self, g: list, ins: list, outs: list, **grouping: int) -> tuple:
        """Returns the derivatives of the formula in this file's docstring; u, v, q are the cotangents of dx, dweight, dbias."""
        dy, x, mean, rstd, *weight = ins
        view = self.view(tuple(x._v.shape), **grouping)
        u, v, q = [*g, None, None][:3]
        dy, scale = view.full(dy), view.stat(rstd)
        off = sub(view.full(x), view.stat(mean)) if self.centred else view.full(x)
        xhat = mul(off, scale)
        dys, xhats, drstd, dweight = [], [], [], None
        if u is not None:
            gain = mul(dy, view.weight(weight[0])) if weight else dy
            h = mul(view.full(u), scale)
            along, across = view.mean(mul(gain, xhat)), view.mean(mul(h, xhat))
            flat = sub(self._levelled(view, h), mul(xhat, across))
            dys.append(mul(flat, view.weight(weight[0])) if weight else flat)
            dweight = sum_p(mul(dy, flat), axes=view.weight_axes) if weight else None
            xhats.append(neg(add(mul(h, along), mul(gain, across))))
            inner = sub(self._levelled(view, gain), mul(xhat, along))
            drstd.append(view.stat_sum(mul(view.full(u), inner)))
        if v is not None:
            dys.append(mul(view.weight(v), xhat))
            xhats.append(mul(view.weight(v), dy))
        if q is not None:
            dys.append(expand(view.weight(q), view.shape))
        dxhat = _total(xhats)
        dx = None if dxhat is None else mul(dxhat, scale)
        if dxhat is not None:
            drstd.append(view.stat_sum(mul(dxhat, off)))
        dmean = None if dx is None or not self.centred else neg(view.stat_sum(dx))
        found = (_total(dys), dx, dmean, _total(drstd), dweight)
        return tuple(None if t is None else reshape(t, i._v.shape) for t, i in zip(found, ins, strict=False))

    def _levelled(self, view: Units, t: Tensor) -> Tensor:
        return sub(t, view.mean(t)) if self.centred else t

    # ---- batching: examples become channels, with statistics and weights of their own -----------------------------------
    def _batch(
        self, forward: Primitive, n: int, ins: list, batched: list, eps: float, residuals: bool = True, **grouping: int
    ) -> list:
        setting: dict = {"eps": eps, "residuals": residuals}
        if grouping != {"groups": 0} and not any(batched[1:]):  # shared weights: examples join the batch
            return [split_batch(out, n) for out in forward(merge_batch(ins[0]), *ins[1:], **setting, **grouping)]
        x, *affine = all_batched(n, ins, batched)
        y, *stats = forward(merge_channels(x), *[merge_batch(t) for t in affine], **setting, **_times(grouping, n))
        return [split_channels(y, n), *[self._split(stat, n) for stat in stats]]

    def _grad_batch(self, grad: Primitive, n: int, ins: list, batched: list, **grouping: int) -> list:
        dy, x, mean, rstd, *weight = all_batched(n, ins, batched)
        stats = [self._joined(stat) for stat in (mean, rstd)]
        merged = [merge_batch(t) for t in weight]
        dx, *dweights = grad(merge_channels(dy), merge_channels(x), *stats, *merged, **_times(grouping, n))
        return [split_channels(dx, n), *[split_batch(t, n) for t in dweights]]

    def _split(self, stat: Tensor, n: int) -> Tensor:
        return split_channels(stat, n) if stat.ndim > 1 else split_batch(stat, n)

    def _joined(self, stat: Tensor) -> Tensor:
        return merge_channels(stat) if stat.ndim > 2 else merge_batch(stat)


def _times(grouping: dict, n: int) -> dict:
    return {name: groups * n for name, groups in grouping.items()}


batch_norm_p, batch_norm_grad_p = Family("batch_norm", _batch_view, 3, launch.units, launch.units_grad).primitives()
group_norm_p, group_norm_grad_p = Family("group_norm", _batch_view, 3, launch.units, launch.units_grad).primitives()
layer_norm_p, layer_norm_grad_p = Family(
    "layer_norm", _row_view, 2, launch.rows(True), launch.rows_grad(True)
).primitives()
rms_norm_p, rms_norm_grad_p = Family(
    "rms_norm", _row_view, 2, launch.rows(False), launch.rows_grad(False), False
).primitives()
