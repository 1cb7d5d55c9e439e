"""The output layer with softmax and cross-entropy: o = V h + c, L = -sum log softmax(o)[y] (Goodfellow et al. 10.2)."""

from __future__ import annotations

from typing import Literal, Optional

import numpy as np

from ..spec import Array


def linear_cross_entropy(
    h: Array,
    weight: Array,
    bias: Optional[Array],
    targets: Array,
    *,
    mask: Optional[Array] = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
    gradient: bool = False,
) -> tuple[Array, Optional[Array], Optional[Array], Optional[Array]]:
    """Return the loss and the gradients by h, weight and bias, None where there are none. Arguments are not checked."""
    counts = targets != ignore_index
    if mask is not None:
        counts = counts & mask
    rows, classes = h[counts], targets[counts]  # (N, H), (N,)
    chosen = np.arange(len(classes)), classes

    logits = rows @ weight.T
    if bias is not None:
        logits = logits + bias
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.finfo(h.dtype).max)
        total = np.exp(shifted).sum(axis=1, keepdims=True)
        scale = h.dtype.type(1) / np.asarray(len(classes), h.dtype) if reduction == "mean" else h.dtype.type(1)
        losses = np.log(total[:, 0]) - shifted[chosen]
        loss = losses.sum(dtype=h.dtype) * scale if len(classes) or reduction == "sum" else h.dtype.type(np.nan)
        if not gradient:
            return loss, None, None, None
        dlogits = np.exp(shifted) / total  # (N, V)
    dlogits[chosen] -= 1
    dlogits *= scale
    dh = np.zeros_like(h, order="C")
    dh[counts] = dlogits @ weight
    return loss, dh, dlogits.T @ rows, None if bias is None else dlogits.sum(axis=0)
