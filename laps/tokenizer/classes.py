"""The displacement classes that the decoder's head predicts (paper section 3.1: "a discrete spatial grid").

A point's displacement in one sample step belongs to one of 15 x 15 classes (paper and reference: a grid of
relative displacement). The reference's grid is linear and reaches 7 px; hands at work move a point by 10 to
40 px in 0.1 s, and a tightening screwdriver by less than one. Centres on an asinh scale hold both:
``c_k = s * sinh(k * h)`` for ``k = -7 .. 7`` with ``c_7 = reach``, and edges half-way in k,
``s * sinh((k + 1/2) * h)``. With s = 0.5 px and a reach of 20 px the centres are 0, 0.33, 0.80, 1.60, 3.03,
5.69, 10.67 and 20 px, and the zero class is +-0.16 px, just above the noise of dense optical flow at rest.
Larger displacements belong to the outermost class.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spacing(classes_per_axis: int, scale_px: float, reach_px: float) -> float:
    """h: the distance of two neighbouring classes on the asinh scale."""
    return math.asinh(reach_px / scale_px) / (classes_per_axis // 2)


def centres_px(classes_per_axis: int, scale_px: float, reach_px: float) -> Tensor:
    """Centres of the classes of one axis: float32 [classes_per_axis], px a sample step, ascending."""
    half = classes_per_axis // 2
    k = torch.arange(-half, half + 1, dtype=torch.float64)
    return (scale_px * torch.sinh(k * spacing(classes_per_axis, scale_px, reach_px))).float()


def edges_px(classes_per_axis: int, scale_px: float, reach_px: float) -> Tensor:
    """The borders between them: float32 [classes_per_axis - 1], px a sample step, ascending."""
    half = classes_per_axis // 2
    k = torch.arange(-half, half, dtype=torch.float64) + 0.5
    return (scale_px * torch.sinh(k * spacing(classes_per_axis, scale_px, reach_px))).float()


def classify(displacements_px: Tensor, edges: Tensor) -> Tensor:
    """Class of each displacement: [..., (x, y)] px -> int64 [...], ``x class * classes_per_axis + y class``."""
    axis = torch.bucketize(displacements_px.contiguous(), edges)
    return axis[..., 0] * (len(edges) + 1) + axis[..., 1]


def grid_px(centres: Tensor) -> Tensor:
    """Displacement that each class stands for: float32 [classes, (x, y)]."""
    return torch.cartesian_prod(centres, centres)


def class_weights(centres: Tensor, still_weight: float, scale_px: float) -> Tensor:
    """Weight of each class in the loss: float32 [classes], from ``still_weight`` to 1.

    Half to 95% of all points stand still, and unweighted their cross-entropy drowns everything else: the plain
    recipe puts every point into the zero class and needs one code. The weight grows with the square of the
    class's size on the classes' own asinh scale. Of the whole loss on tracks of a workstation where 91% of the
    points stand still, these then make up a quarter, tracker noise (0.16 to 0.5 px) 4%, and motion the rest;
    linear growth would give noise 12%, and the codes would follow it at rest. The weight is a function of the
    class alone, so that decoding can divide it out of the posterior again.
    """
    size = torch.asinh(grid_px(centres).norm(dim=-1) / scale_px)
    return still_weight + (1 - still_weight) * (size / size.max()) ** 2
