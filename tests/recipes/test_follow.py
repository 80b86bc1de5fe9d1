"""`follow` of any latents: those of pieces of a picture, and, refused before anything is trained, those of states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tacit.data import toys
from tacit.recipes import clam, follow, lapa


def test_a_policy_sees_through_an_encoder_that_gives_tokens(
    planned: Callable[..., Any], dots: Callable[..., Any], missed: Callable[..., float]
) -> None:
    train, held = dots(64)
    latents = lapa.lapa(train.unlabelled(), None, plan=planned(3, batch=8), **lapa.TINY)  # type: ignore[arg-type]
    made = follow.follow(latents, train, None, plan=planned(20, batch=8))
    assert made.pilot.encoder(held.clips(2).batch([0]).frames[:, 0] / 255 - 0.5).ndim == 3  # it does give tokens
    assert missed(made, held) < 3.0  # it acts; three steps of latents make it act badly


def test_latents_of_states_are_refused_before_anything_is_trained(planned: Callable[..., Any]) -> None:
    data = toys.linear(episodes=20, length=12, seed=0).episodes
    tiny: dict[str, Any] = {**clam.TINY, "states": True}
    latents = clam.clam(data, None, plan=planned(2, batch=8), **tiny)
    with pytest.raises(ValueError, match="looks at states"):
        follow.follow(latents, data, None, plan=planned(2))
