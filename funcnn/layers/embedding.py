"""Embedding: a table of learned vectors, looked up by integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from funcnn.core.errors import ShapeError
from funcnn.core.tensor import Tensor
from funcnn.layers.base import Layer, arg, float_dtype, frozen_set
from funcnn.ops.base.promote import to_tensor
from funcnn.ops.elementwise.comparison import eq
from funcnn.ops.elementwise.select import where
from funcnn.ops.indexing.embedding import embedding, padding_row
from funcnn.ops.movement.views import detach, reshape
from funcnn.ops.random.keys import normal_from
from funcnn.ops.tensor.creation import arange


@dataclass(frozen=True, repr=False, eq=False)
class Embedding(Layer):
    """Rows of a learned table by integers: (*) to (*, embedding_dim). With max_norm a lookup rescales rows in place."""

    num_embeddings: int = arg("rows of the table")
    embedding_dim: int = arg("size of a row")
    padding_idx: int | None = arg("row that begins as zeros and gets no gradient", None)
    max_norm: float | None = arg("longer rows are scaled down to this norm, in place, when they are looked up", None)
    norm_type: float = arg("p of the norm that max_norm bounds", 2.0)
    scale_grad_by_freq: bool = arg("divide gradients by how often an index occurs in the batch", False)
    sparse: bool = arg("kept for PyTorch's signature; must be False", False)
    _weight: Any = arg("a given table (num_embeddings, embedding_dim)", None)
    _freeze: bool = arg("whether the module's table is left out of training", False)
    device: Any = arg("cpu or None", None)
    dtype: Any = arg("dtype of the table, None for the default float", None)
    parameters: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        if self.sparse:
            raise NotImplementedError("Embedding: sparse gradients are not supported; use sparse=False")
        if self.padding_idx is not None:
            frozen_set(self, padding_idx=padding_row("Embedding", self.padding_idx, self.num_embeddings))
        if self._weight is not None and tuple(self._weight.shape) != (self.num_embeddings, self.embedding_dim):
            raise ShapeError(
                f"Embedding: expected a weight of shape {(self.num_embeddings, self.embedding_dim)}, "
                f"got {tuple(self._weight.shape)}"
            )

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
    ) -> Any:  # fmt: skip
        """An embedding whose table is ``embeddings`` (V, D); a module's is frozen unless ``freeze=False``."""
        table = to_tensor(embeddings)
        if table.ndim != 2:
            raise ShapeError(f"Embedding.from_pretrained: expected (V, D), got shape {tuple(table.shape)}")
        rows, size = table._v.shape
        return cls(rows, size, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, table, freeze)

    def init(self, key: Tensor) -> tuple[dict, dict]:
        """weight (num_embeddings, embedding_dim), standard normal with zeros at padding_idx; or the given table."""
        if self._weight is not None:
            return {"weight": detach(to_tensor(self._weight))}, {}
        weight = normal_from(key, (self.num_embeddings, self.embedding_dim), float_dtype(self.dtype))
        if self.padding_idx is not None:
            weight = where(eq(reshape(arange(self.num_embeddings), (-1, 1)), self.padding_idx), 0.0, weight)
        return {"weight": weight}, {}

    def __call__(self, params: dict, state: dict, x: Any, *, training: bool = False, key: Any = None) -> tuple:
        options = self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq
        return embedding(x, params["weight"], *options), state

    def extra_repr(self) -> str:
        shown = f"{self.num_embeddings}, {self.embedding_dim}"
        for name, default in (
            ("padding_idx", None),
            ("max_norm", None),
            ("norm_type", 2),
            ("scale_grad_by_freq", False),
        ):
            value = getattr(self, name)
            if value != default:
                shown += f", {name}={value}"
        return shown
