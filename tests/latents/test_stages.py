"""Two stages (UniVLA): the first book says what the instruction does not, and the second what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.clip import Episode
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.latents.hindsight import Reader
from tacit.latents.model import LatentActions
from tacit.part import Part
from tacit.parts.patches import cut
from tacit.recipes.univla import univla
from tacit.train import Plan

SAID = ("darken", "brighten")


class Cells(Part):
    """An encoder without weights: the patches as they are."""

    dim, tokens = 48, 4

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]
        return cut(frames, 4)


class Words(Part):
    """Either instruction as one token of two numbers."""

    dim = 2

    def forward(self, texts: Any) -> Tensor:  # type: ignore[override]
        return torch.eye(2)[[SAID.index(text) for text in texts]][:, None]


@pytest.fixture(scope="module")
def data() -> tuple[Episodes, np.ndarray, np.ndarray]:
    """The left half does what is said, the right half darkens or brightens by itself: and which each did."""
    random = np.random.default_rng(0)
    told, own = random.integers(2, size=(2, 256))
    episodes = []
    for word, chance in zip(told, own, strict=True):
        frames = np.repeat(random.integers(100, 156, size=(1, 8, 8, 3)), 2, 0)
        frames[1, :, :4] += 80 * word - 40
        frames[1, :, 4:] += 80 * chance - 40
        episodes.append(Episode(frames=frames.astype(np.uint8), text=SAID[word]))
    return Episodes.of(episodes), told, own


def agree(codes: Tensor, bits: np.ndarray) -> float:
    """The share of transitions whose code says the bit, whichever of the two stands for it."""
    same = float((codes[:, 0].numpy() == bits).mean())
    return max(same, 1 - same)


def test_the_first_codes_say_what_the_words_do_not_and_the_second_what_they_do(
    data: tuple[Episodes, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    episodes, told, own = data
    small: dict[str, Any] = {"codes": 2, "tokens": 1, "dim": 4, "width": 32, "layers": 1, "heads": 2}
    plan = Plan(steps=250, batch=64, rate=3e-3, warmup=10, seed=0, log_every=1000, device="cpu")
    made = univla(episodes, tmp_path, encoder=Cells(), language=Words(), plan=plan, **small)
    first = LatentActions.load(tmp_path / "first", classes=[Cells, Words])
    clip = Clips(episodes, 2).batch(np.arange(256))
    with torch.no_grad():
        before, after = first.found(clip).codes, made.eval().found(clip.replace(text=None)).codes
        old = made.bottleneck.old.book
    assert before is not None and after is not None
    assert agree(before, own) > 0.95 and agree(before, told) < 0.7
    assert agree(after, told) > 0.95 and agree(after, own) < 0.7
    assert torch.equal(old, first.bottleneck.book)  # frozen through the second stage


def test_instructions_that_are_not_there_are_asked_for(data: tuple[Episodes, np.ndarray, np.ndarray]) -> None:
    mute = Episodes.of([data[0].episode(i).replace(text=None) for i in range(8)])
    with pytest.raises(ValueError, match="built with a language, and the clip has no text"):
        univla(mute, None, encoder=Cells(), language=Words(), tokens=1, dim=4, width=8, layers=1, heads=2)


def test_a_reader_goes_on_with_more_queries_from_where_it_was() -> None:
    torch.manual_seed(0)
    reader = Reader(features=5, tokens=3, dim=4, queries=2, told=2, width=8, layers=1, heads=2)
    more, x = reader.further(3), torch.randn(6, 2, 3, 5)
    assert more.along(x).shape == (6, 1, 10) and more.listen is None
    mine, theirs = reader.state_dict(), more.state_dict()
    assert torch.equal(theirs["body.tokens"][:2], mine["body.tokens"]) and len(theirs["body.tokens"]) == 5
    same = [name for name in mine if name != "body.tokens" and not name.startswith("listen")]
    assert all(torch.equal(theirs[name], mine[name]) for name in same)
    assert reader.arguments["queries"] == 2 and more.arguments["queries"] == 5
