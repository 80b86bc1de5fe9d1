"""Judging, by doubles in which one thing each is planted: every number must go up, go down, or be left out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tacit.clip import Clip, Episode, floats
from tacit.data.episodes import Episodes
from tacit.data.toys import dots
from tacit.data.toys import linear as trajectories
from tacit.envs.dots import WIDE, Board
from tacit.evaluate.latents import align, figures, judge, report
from tacit.evaluate.report import Report, Value

BOARD = Board(discrete=True, goal=False)
EPISODES = dots(BOARD, episodes=40, length=13).episodes
BARE = EPISODES.unlabelled()  # where the numbers in question need no label, none is probed for


def moved(clip: Clip) -> Tensor:
    """The body's displacement, over the joined edges, as one step allows."""
    assert clip.state is not None
    way = clip.state[:, 1:, :2] - clip.state[:, :-1, :2]
    return (torch.remainder(way + WIDE / 2, WIDE) - WIDE / 2).clamp(-1, 1)


def painted(clip: Clip, steps: Tensor) -> Tensor:
    """The picture with the body moved by ``steps``."""
    assert clip.state is not None
    places = (clip.state[:, :-1, :2] + steps).reshape(-1, 2).numpy()
    drawn = BOARD.draw(places, goals=np.zeros_like(places), exogenous=np.zeros((len(places), 0)))
    return floats(torch.from_numpy(drawn).permute(0, 3, 1, 2)).unflatten(0, steps.shape[:2])


def flat(frames: Tensor) -> Tensor:
    return frames.flatten(2)


class Double:
    """A model that knows the world: its latent is the displacement and it paints what follows; or what is planted."""

    seen = frozenset[str]()

    def __init__(
        self,
        infer: Callable[[Clip], Tensor] = moved,
        predict: Callable[[Clip, Tensor], Tensor] = painted,
        *,
        targets: Callable[[Clip], Tensor] | None = None,
        past: int = 0,
    ) -> None:
        self._infer, self._predict, self._targets, self.past = infer, predict, targets, past

    def infer(self, clip: Clip) -> Tensor:
        assert clip.actions is None and clip.latents is None
        return self._infer(clip)

    def predict(self, clip: Clip, latents: Tensor) -> Tensor:
        return self._predict(clip, latents)

    def targets(self, clip: Clip) -> Tensor:
        assert clip.frames is not None
        return self._targets(clip) if self._targets else floats(clip.frames[:, 1:])


def now(clip: Clip) -> Tensor:
    assert clip.frames is not None
    return floats(clip.frames[:, :-1])


def then(clip: Clip) -> Tensor:
    assert clip.frames is not None
    return floats(clip.frames[:, 1:])


def judged(model: Any, episodes: Episodes = EPISODES, **options: Any) -> dict[str, Value]:
    return {v.name: v for v in judge(model, episodes, **options)}


def number(values: dict[str, Value], name: str) -> float:
    found = values[name].value
    assert found is not None, values[name].note
    return found


def test_a_model_that_knows_the_world_passes_everything() -> None:
    found = judged(Double())
    assert number(found, "FVU") < 0.01
    assert number(found, "zero-latent gap") > 0.95 and number(found, "shuffled-latent gap") > 0.95
    assert number(found, "delta-PSNR") > 20
    assert number(found, "cut and copy") < 0.2
    assert number(found, "future leak") == 0
    assert number(found, "z moves with the next frame") > 0.5
    assert number(found, "best offset of the labels") == 0
    assert number(found, "linear probe at offset +0") > 0.95
    for value in found.values():
        assert value.low is not None and value.high is not None and value.low <= value.value <= value.high  # type: ignore[operator]
        assert "40 held-out episodes" in value.data and value.n > 5 and value.note


def test_every_number_is_of_held_out_episodes_and_has_their_spread() -> None:
    half = Double(predict=lambda clip, z: painted(clip, z * (clip.state[:, :1, :1] > WIDE / 2)))  # type: ignore[index]
    few, many = (judged(half, dots(BOARD, episodes=n, length=7).episodes.unlabelled())["FVU"] for n in (10, 160))
    assert few.n == 10 and many.n == 160
    assert few.high - few.low > 2 * (many.high - many.low) > 0.02  # type: ignore[operator]


def test_an_ignored_latent_is_seen() -> None:
    found = judged(Double(predict=lambda clip, z: now(clip)))
    assert number(found, "FVU") == pytest.approx(1)
    assert number(found, "zero-latent gap") == number(found, "shuffled-latent gap") == number(found, "delta-PSNR") == 0
    assert number(found, "linear probe at offset +0") > 0.95  # the probe alone would have let it pass


def test_a_collapsed_latent_is_seen() -> None:
    # what a code looks like behind a straight-through estimator: the same but for rounding, which tells on it
    found = judged(Double(lambda clip: torch.full_like(moved(clip), 0.5) + 2e-7 * moved(clip)))
    assert number(found, "shuffled-latent gap") == pytest.approx(0, abs=1e-5)
    assert number(found, "z moves with the next frame") == 0
    assert found["best offset of the labels"].value is None
    assert "better than chance" in found["best offset of the labels"].note
    assert number(found, "linear probe at offset +0") < 0.3


def test_a_latent_blind_to_the_next_frame_is_seen() -> None:
    found = judged(Double(lambda clip: clip.state[:, :-1, :2] / WIDE))  # type: ignore[index]
    assert number(found, "z moves with the next frame") == 0
    assert found["best offset of the labels"].value is None  # play has nothing to do with where one is
    one = judged(Double(lambda clip: torch.randn_like(moved(clip))))
    assert one["best offset of the labels"].value is None


def test_a_latent_that_carries_the_frame_is_seen() -> None:
    copier = Double(lambda clip: flat(then(clip)), lambda clip, z: z.unflatten(2, now(clip).shape[2:]))
    found = judged(copier, BARE)
    assert number(found, "FVU") < 0.01 and number(found, "delta-PSNR") > 20  # it looks perfect
    assert number(found, "cut and copy") > 0.99
    assert number(found, "future leak") == 0  # all of it went through z
    faint = Double(copier.infer, lambda clip, z: now(clip) + 0.5 * (z.unflatten(2, now(clip).shape[2:]) - now(clip)))
    assert number(judged(faint, BARE), "cut and copy") == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("share", [1.0, 0.03])
def test_a_future_frame_that_leaks_round_the_bottleneck_is_seen(share: float) -> None:
    def leaky(clip: Clip, z: Tensor) -> Tensor:
        return painted(clip, z) + share * (then(clip) - then(clip).mean((2, 3, 4), keepdim=True))

    found = judged(Double(predict=leaky), BARE)
    # a constant change of the future frame moves nothing here: only noise, and another frame, give it away
    assert number(found, "future leak") == pytest.approx(share**2, rel=0.3)
    assert found["future leak"].low > 0  # type: ignore[operator]
    whole = judged(Double(predict=lambda clip, z: then(clip)), BARE)
    assert number(whole, "future leak") == pytest.approx(1) and number(whole, "FVU") == 0
    assert number(whole, "shuffled-latent gap") == number(whole, "delta-PSNR") == 0


def test_a_leak_into_earlier_predictions_is_seen() -> None:
    def mixed(clip: Clip, z: Tensor) -> Tensor:  # attention that mixes time: the first prediction sees the last frame
        first, second = painted(clip, z).unbind(1)
        return torch.stack([first + 0.1 * then(clip)[:, 1], second], 1)

    assert number(judged(Double(predict=mixed, past=1), BARE), "future leak") > 0.005
    assert number(judged(Double(past=1), BARE), "future leak") == 0


def test_chance_in_the_prediction_is_no_leak() -> None:
    noisy = Double(predict=lambda clip, z: painted(clip, z) + 0.1 * torch.randn_like(now(clip)))
    assert number(judged(noisy), "future leak") == 0


def test_features_are_judged_as_pictures_are() -> None:
    places = Double(
        predict=lambda clip, z: clip.state[:, :-1, :2] + z,  # type: ignore[index]
        targets=lambda clip: clip.state[:, 1:, :2],  # type: ignore[index]
    )
    inside = dots(Board(discrete=True, goal=False, wrap=False), episodes=20, length=5).episodes.unlabelled()
    found = judged(places, inside)
    assert number(found, "FVU") < 1e-6 and number(found, "cut and copy") < 0.5 and figures(places, inside) == {}


def test_the_last_transition_of_a_longer_clip_is_the_one_judged() -> None:
    def late(clip: Clip, z: Tensor) -> Tensor:  # wrong wherever the past is not whole
        out = painted(clip, z)
        return torch.cat([torch.zeros_like(out[:, :2]), out[:, 2:]], 1)

    assert number(judged(Double(predict=late, past=2), BARE), "FVU") < 0.01
    assert number(judged(Double(predict=lambda clip, z: now(clip), past=2), BARE), "FVU") == pytest.approx(1)


def test_where_nothing_moves_nothing_is_said() -> None:
    still = [
        dataclasses.replace(EPISODES.episode(i), frames=EPISODES.episode(i).frames[:1].repeat(13, 0)) for i in range(9)
    ]  # type: ignore[index]
    found = judged(Double(predict=lambda clip, z: now(clip)), Episodes.of(still, space=BOARD.space))
    for name in ("FVU", "zero-latent gap", "shuffled-latent gap", "delta-PSNR"):
        assert found[name].value is None and found[name].low is None and "nothing moves" in found[name].note


def shifted(by: int, source: Episodes = EPISODES) -> Episodes:
    """The same recordings with every label ``by`` steps late."""
    made: list[Episode] = []
    for i in range(len(source)):
        episode = source.episode(i)
        assert episode.actions is not None
        made.append(dataclasses.replace(episode, actions=np.roll(episode.actions, by, axis=0)))
    return Episodes.of(made, space=source.spec.space)


@pytest.mark.parametrize("by", [0, 1, -2])
def test_labels_out_of_step_are_found_where_they_are(by: int) -> None:
    values = {v.name: v for v in align(Double(), shifted(by))}
    best = values["best offset of the labels"]
    assert (best.value, best.low, best.high) == (by, by, by)
    assert number(values, f"linear probe at offset {by:+d}") > 0.95
    assert all(number(values, f"linear probe at offset {k:+d}") < 0.4 for k in range(-3, 4) if k != by)


def test_vectors_out_of_step_are_found_too() -> None:
    toy = trajectories(episodes=30, length=17, actions=2, exogenous=2, size=8, noise=0.01).episodes
    change = Double(lambda clip: clip.state[:, 1:] - clip.state[:, :-1])  # type: ignore[index]
    for by in (0, 1):
        values = {v.name: v for v in align(change, shifted(by, toy))}
        assert (
            values["best offset of the labels"].value == by and number(values, f"linear probe at offset {by:+d}") > 0.9
        )
        assert abs(number(values, f"linear probe at offset {by - 1:+d}")) < 0.2


def test_labels_that_hold_on_leave_the_best_offset_open() -> None:
    """Where an action lasts the whole episode every offset is as good, and the interval must say so."""
    actions = np.repeat(np.arange(40) % 5, 12).reshape(40, 12)
    held = [dataclasses.replace(EPISODES.episode(i), actions=actions[i]) for i in range(40)]
    constant = Double(lambda clip: clip.state[:, 1:, 2:])  # type: ignore[index]
    for i, episode in enumerate(held):  # the latent reads a number that stands for the held action, with some noise
        assert episode.state is not None
        noise = np.random.default_rng(i).normal(0, 0.5, size=(13, 2))
        held[i] = dataclasses.replace(
            episode, state=np.concatenate([episode.state[:, :2], COMPASS[actions[i, 0]] + noise], 1, dtype=np.float32)
        )
    best = {v.name: v for v in align(constant, Episodes.of(held, space=BOARD.space))}["best offset of the labels"]
    assert (best.value, best.low, best.high) == (0, -3, 3)


COMPASS = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])


def test_without_labels_the_label_free_numbers_stand() -> None:
    found = judged(Double(), EPISODES.unlabelled())
    assert number(found, "shuffled-latent gap") > 0.95
    best = found["best offset of the labels"]
    assert best.value is None and "labels 7 in a row are visible in 0 of 40 episodes" in best.note
    sparse = EPISODES.keep_labels(60, stretch=5)
    assert judged(Double(), sparse)["best offset of the labels"].value is None


def test_a_broken_time_convention_is_refused() -> None:
    short = Double(lambda clip: moved(clip)[:, :0])
    with pytest.raises(ValueError, match=r"Double\.infer gave .*one for each transition"):
        judge(short, EPISODES)
    long = Double(predict=lambda clip, z: torch.cat([painted(clip, z), now(clip)[:, :1]], 1))
    with pytest.raises(ValueError, match=r"Double\.predict gave"):
        judge(long, EPISODES)
    with pytest.raises(ValueError, match="hold 1 transitions"):
        judge(Double(), dots(BOARD, episodes=1, length=2).episodes)


def test_the_report_holds_all_of_it_and_shows_pictures(tmp_path: Path) -> None:
    whole = report(Double(), EPISODES, kinds=("linear",), most=256)
    assert number({v.name: v for v in whole.values}, "linear probe of z") > 0.95
    for name in ("FVU", "best offset of the labels", "what z adds to o, linear", "effective rank", "perplexity"):
        assert whole[name].data.startswith("40 held-out episodes")
    assert whole.fingerprint == {"held-out episodes": EPISODES.fingerprint} and set(whole.stages) >= {"judging"}
    assert "0 % of the change unexplained" in whole.headline
    pictures = whole.figures["predictions"].body, whole.figures["latent actions"].body
    assert pictures[0].count("<img") == 32
    assert re.findall(r"<figcaption>(.*?)</figcaption>", pictures[1])[1:] and "% of all" in pictures[1]  # five moves
    assert Report.load(whole.save(tmp_path)).values == whole.values


def test_what_each_latent_does_is_shown_by_name_where_names_are_known() -> None:
    jittered = Double(lambda clip: moved(clip) + 0.05 * torch.randn_like(moved(clip)))

    def captions(episodes: Episodes) -> list[str]:
        return re.findall(r"<figcaption>(.*?)</figcaption>", figures(jittered, episodes)["latent actions"].body)

    assert captions(EPISODES) == ["start", "stay", "right", "left", "down", "up"]
    assert captions(EPISODES.unlabelled()) == ["start", "axis 1 +", "axis 1 \u2212", "axis 2 +", "axis 2 \u2212"]
    unseen = trajectories(episodes=4, length=5).episodes
    assert figures(Double(lambda clip: clip.state[:, 1:], lambda clip, z: z), unseen) == {}  # type: ignore[index]
