"""``torch.autograd``'s names for the functions of this folder."""

from __future__ import annotations

from funcnn.transforms.backward import gradients as grad
from funcnn.transforms.grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled

__all__ = ["enable_grad", "grad", "inference_mode", "no_grad", "set_grad_enabled"]
