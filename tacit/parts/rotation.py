"""Latents that are rotations: what two actions come to together, and what undoes one, hold by construction."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from tacit.parts.quantize import Bottled, Bottleneck, lively

FAR, HALVINGS, TERMS = 32.0, 6, 8  # so long a generator, halved so often, is small enough for so many terms


class Rotation(Bottleneck):
    """A latent of ``count`` rotations of ``size`` dimensions, each the exponential of a skew matrix (after RotVLA).

    The input says the skew matrices, row by row above the diagonal, and the latent is all entries of the rotations.
    Size 2 is a turn in a plane, told by its sines and cosines, and in any order several come to the same; from size 3
    on order counts. An input of nought is the identity, which is the latent of nothing happening. In training
    ``noise`` is added to the input, so that the latent stays a rotation.
    """

    basis: Tensor

    def __init__(self, count: int = 4, *, size: int = 3, noise: float = 0.0) -> None:
        if count < 1 or size < 2 or not 0 <= noise < torch.inf:
            raise ValueError(
                f"Rotation was given {count=}, {size=}, {noise=}; it wants 1 or more of size 2 or more, "
                "and 0 or more noise."
            )
        self.count, self.size, self.noise, self.unit = count, size, noise, size**2
        rows, columns = torch.triu_indices(size, size, 1)
        self.width, self.dim = count * len(rows), count * size**2
        basis = torch.zeros(len(rows), size, size)
        basis[range(len(rows)), rows, columns], basis[range(len(rows)), columns, rows] = -1.0, 1.0
        self.register_buffer("basis", basis, persistent=False)

    def bottle(self, x: Tensor) -> Bottled:
        said = x + self.noise * torch.randn_like(x) if self.training and self.noise else x
        skew = torch.einsum("bcp,pij->bcij", said.view(len(x), self.count, -1), self.basis)
        z = _turned(skew).flatten(1)
        return Bottled(z, x.new_zeros(()), lively(z))

    @property
    def identity(self) -> Tensor:
        """The latent (dim,) of nothing happening: no turn at all."""
        return torch.eye(self.size, device=self.basis.device).flatten().repeat(self.count)

    def compose(self, first: Tensor, then: Tensor) -> Tensor:
        """The latent (..., dim) of turning by ``first`` and ``then`` by the other."""
        return (self._matrices(then) @ self._matrices(first)).flatten(-3)

    def inverse(self, z: Tensor) -> Tensor:
        """The latent (..., dim) that turns ``z`` back."""
        return self._matrices(z).mT.flatten(-3)

    def _matrices(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.count, self.size, self.size))


def _turned(skew: Tensor) -> Tensor:
    """The exponential of skew matrices by halving and squaring: torch's own asks the GPU how often, and waits."""
    # No angle is larger than this length; beyond five full turns it is cut, or more halvings would be wanted.
    length = vector_norm(skew, dim=(-2, -1), keepdim=True) / 2**0.5
    small = skew * (FAR / length.clamp(min=FAR)) / 2**HALVINGS
    one = torch.eye(skew.shape[-1], device=skew.device, dtype=skew.dtype)
    turned = one
    for term in range(TERMS, 0, -1):
        turned = one + small @ turned / term
    for _ in range(HALVINGS):
        turned = turned @ turned
    return turned @ (1.5 * one - 0.5 * turned.mT @ turned)  # one step of Newton's takes the rounding off
