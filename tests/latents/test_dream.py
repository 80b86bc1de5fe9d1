"""Dreams begin with what was really seen, go on as the latents say, and are the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tacit.data import toys
from tacit.data.episodes import Episodes
from tacit.envs.dots import Board
from tacit.latents.dream import Dreamer, dream
from tacit.latents.forward import Ahead, Moved, Painted
from tacit.latents.inverse import Difference, Pair, Stacked
from tacit.latents.model import LatentActions
from tacit.parts.keypoints import Keypoints
from tacit.parts.quantize import Free

SIDE = (16, 16)


@pytest.fixture(scope="module")
def data() -> Episodes:
    return toys.dots(Board(size=16, goal=False), episodes=6, length=12).episodes


def lapo() -> LatentActions:
    inverse, forward = Stacked(frame=SIDE, frames=3, dim=2, width=1), Painted(frame=SIDE, frames=2, dim=2, base=8)
    return LatentActions(inverse=inverse, bottleneck=Free(2), forward=forward, past=1)


def moved() -> LatentActions:
    eyes, forward = Keypoints(frame=SIDE, points=2, width=8), Moved(frame=SIDE, points=2, width=8)
    return LatentActions(encoder=eyes, inverse=Difference(features=4), bottleneck=Free(4), forward=forward)


@pytest.mark.parametrize("borrowed", [False, True])
def test_a_dream_begins_with_a_real_frame_and_repeats_itself(data: Episodes, borrowed: bool) -> None:
    dreamer = Dreamer(latents=moved(), features=4, width=8)
    torch.nn.init.normal_(dreamer.latents.onward.net.paint.weight)
    films = [dream(dreamer, data, count=5, length=4, seed=s, borrowed=borrowed) for s in (3, 3, 4)]
    real = {data.episode(i).frames[t].tobytes() for i in range(6) for t in range(12)}  # type: ignore[index]
    for number in range(5):
        frames, again = films[0].episode(number).frames, films[1].episode(number).frames
        assert frames is not None and frames.shape == (4, 16, 16, 3)
        assert frames[0].tobytes() in real and frames[1].tobytes() not in real
        assert np.array_equal(frames, again)
    assert films[0].prints != films[2].prints
    assert set(films[0].sources) == {"dream"} and films[0].labelled == 0


def test_each_frame_is_what_the_model_predicts_from_the_bytes_before(data: Episodes) -> None:
    """With a past of one: the frame before the first is real too, and is not part of the dream."""
    model = lapo()
    dreamer = Dreamer(latents=model, features=192, width=8)
    film = dream(dreamer, data, count=1, length=3, borrowed=True)
    frames = torch.from_numpy(np.array(film.episode(0).frames)).permute(0, 3, 1, 2)
    rows = np.random.default_rng(0)
    clips = data.unlabelled().clips(4)
    begun, lent = (clips.batch(rows.integers(len(clips), size=1)) for _ in range(2))  # type: ignore[arg-type,union-attr]
    assert begun.frames is not None
    assert torch.equal(frames[0], begun.frames[0, 1])
    with torch.no_grad():
        z = model.eval().infer(lent)
        first = model.predict(begun.steps(0, 3), z[:, :2])[0, 1]
    assert (frames[1].float() / 255 - 0.5 - first.clamp(-0.5, 0.5)).abs().max() < 1 / 255


def test_what_does_not_paint_does_not_dream(data: Episodes) -> None:
    eyes = Keypoints(frame=SIDE, points=2, width=8)
    model = LatentActions(
        encoder=eyes,
        inverse=Pair(features=4, dim=2, width=8),
        bottleneck=Free(2),
        forward=Ahead(encoder=eyes, features=4, dim=2, width=8),
    )
    with pytest.raises(ValueError, match="whose forward model paints"):
        dream(Dreamer(latents=model, features=4), data, count=1, length=3)
