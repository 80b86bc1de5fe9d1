"""Plain networks: linear without hidden layers."""

from __future__ import annotations

import pytest
import torch

from tacit.parts.mlp import Flat, Layers


def test_without_hidden_layers_it_is_a_linear_map() -> None:
    straight, bent = Layers(inputs=5, dim=3, depth=0), Layers(inputs=5, dim=3, width=7, depth=2)
    x, y = torch.randn(2, 4, 5)

    def bend(net: Layers) -> float:
        return float((net(x) + net(y) - net(x + y) - net(torch.zeros(4, 5))).abs().max().detach())

    assert bend(straight) < 1e-6 < 1e-4 < bend(bent)
    assert bent(torch.randn(2, 4, 5)).shape == (2, 4, 3)


def test_flat_is_the_grey_row_by_row() -> None:
    picture = torch.arange(2 * 3 * 2 * 4, dtype=torch.float32).view(2, 3, 2, 4)
    seen = Flat(frame=(2, 4))(picture)
    torch.testing.assert_close(seen, picture[:, 1].reshape(2, 8))  # the middle of three equal steps is their mean
    assert Flat(frame=(2, 4)).dim == 8
    assert not list(Flat(frame=(2, 4)).parameters())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="inputs=6"):
        Layers(inputs=5, dim=3)(torch.zeros(2, 6))
    with pytest.raises(ValueError, match="\\(3, 4\\)"):
        Flat(frame=(3, 4))(torch.zeros(2, 3, 4, 4))
