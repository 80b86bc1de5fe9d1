"""Only what was held out is judged, and every transition that is judged is the one it is said to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tacit.clip import Clip, Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.toys import linear
from tacit.evaluate.codes import codes
from tacit.evaluate.holdout import BATCH, fold, infer, refuse_overlap, surrounded, untrained, walk
from tacit.evaluate.latents import align, figures, judge, report
from tacit.evaluate.probe import probe, probes
from tacit.part import Part

SPACE = Space("discrete", 9)


def counted(*lengths: int, labelled: bool = True) -> Episodes:
    """Episodes whose every frame and action says where it stands: 100 times the episode plus the step."""
    made = []
    for i, n in enumerate(lengths):
        place = 100 * i + np.arange(n)
        frames = np.broadcast_to(place[:, None, None, None] % 256, (n, 4, 4, 3)).astype(np.uint8)
        actions = place[:-1] % 9 if labelled else None
        made.append(Episode(frames=frames, state=place[:, None].astype(np.float32), actions=actions))
    return Episodes.of(made, space=SPACE if labelled else None)


class Change:
    """A latent that is the change of the state."""

    def __init__(self, seen: Any = frozenset(), past: int = 0) -> None:
        self.seen, self.past = seen, past

    def infer(self, clip: Clip) -> Tensor:
        assert clip.state is not None
        return clip.state[:, 1:] - clip.state[:, :-1]

    def predict(self, clip: Clip, latents: Tensor) -> Tensor:
        assert clip.state is not None
        return clip.state[:, :-1] + latents

    def targets(self, clip: Clip) -> Tensor:
        assert clip.state is not None
        return clip.state[:, 1:]


@pytest.mark.parametrize("judging", [judge, align, report, figures, probe, probes, codes], ids=lambda f: f.__name__)
def test_nothing_is_measured_on_what_was_trained_on(judging: Any) -> None:
    episodes = linear(episodes=12, length=9).episodes
    with pytest.raises(ValueError, match=r"3 of these 12 episodes were used to train Change.*episodes\.split\(\)"):
        judging(Change(frozenset(episodes.prints[4:7])), episodes)


def test_overlap_is_known_by_content_however_it_is_given() -> None:
    episodes = linear(episodes=6, length=5).episodes
    train, held = episodes.split(0.5)
    refuse_overlap(Change(frozenset(train.prints)), held)
    refuse_overlap(train.prints, held)
    again = Episodes.of([episodes.episode(i).replace(actions=None, source="copied") for i in range(6)])
    with pytest.raises(ValueError, match=f"{len(train)} of these 6"):
        refuse_overlap(train.prints, again)
    with pytest.raises(ValueError, match="no episodes to evaluate on"):
        refuse_overlap((), held.select([]))
    for wrong in ("abc", 3, nn.Linear(1, 1)):
        with pytest.raises(TypeError, match="seen"):
            refuse_overlap(wrong, held)


class Leaf(Part):
    def __init__(self, width: int) -> None:
        self.weight = nn.Parameter(torch.randn(width))


class Branch(Part):
    def __init__(self, *, left: Part, right: Part, more: tuple[Part, ...] = ()) -> None:
        self.left, self.right, self.more = left, right, nn.ModuleList(more)


def test_what_an_inner_part_was_trained_on_counts() -> None:
    episodes = linear(episodes=4, length=5).episodes
    whole = Branch(left=Leaf(2), right=Leaf(2))
    refuse_overlap(whole, episodes)
    whole.right.seen = frozenset(episodes.prints[:1])
    with pytest.raises(ValueError, match="1 of these 4"):
        refuse_overlap(whole, episodes)


def test_an_untrained_copy_shares_no_weight_and_keeps_the_wiring() -> None:
    shared = Leaf(3)
    trained = Branch(left=shared, right=shared, more=(Leaf(4),))
    trained.seen = frozenset({"a"})
    with torch.no_grad():
        for weight in trained.parameters():
            weight.fill_(7.0)
    state = torch.get_rng_state()
    fresh = untrained(trained, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert fresh.left is fresh.right and fresh.left is not trained.left and not fresh.seen and not fresh.training
    assert not any((weight == 7).any() for weight in fresh.parameters())  # the arguments hold trained parts
    assert all((weight == 7).all() for weight in trained.parameters())
    assert torch.equal(untrained(trained, seed=1).left.weight, fresh.left.weight)
    assert not torch.equal(untrained(trained, seed=2).left.weight, fresh.left.weight)
    with pytest.raises(TypeError, match="only a Part"):
        untrained(Change())


@pytest.mark.parametrize("length", [2, 3, 5])
def test_each_transition_once_with_all_the_past_a_model_wants(length: int) -> None:
    episodes = counted(9, 3, 20, 6)
    path = walk(episodes, length=length)
    found, seen = [], np.zeros(len(path), int)
    for rows, clip in path.batches(size=7):
        assert clip.time == length and clip.state is not None
        assert (np.diff(clip.state[:, :, 0].numpy(), axis=1) == 1).all()  # no clip crosses two episodes
        assert clip.actions is clip.mask is clip.latents is clip.rewards is None
        place = clip.state[:, -2, 0].numpy()
        assert (episodes.column("state")[path.at[rows], 0] == place).all()  # type: ignore[index]
        assert (episodes.column("actions")[path.at[rows]] == place % 9).all()  # type: ignore[index]
        assert (path.owner[rows] == place // 100).all()
        found += place.tolist()
        seen[rows] += 1
    assert (seen == 1).all()
    assert sorted(found) == [100 * i + t for i, n in enumerate((9, 3, 20, 6)) for t in range(length - 2, n - 1)]


def test_a_draw_is_even_repeatable_and_within_what_was_asked() -> None:
    episodes = counted(*[41] * 20)
    path = walk(episodes, most=200)
    assert len(path) == 200 and np.bincount(path.owner).min() > 2
    assert (walk(episodes, most=200).at == path.at).all() and not (walk(episodes, most=200, seed=1).at == path.at).all()
    kept = episodes.keep_labels(48)
    assert sorted(walk(kept, among=kept.mask).at) == np.flatnonzero(kept.mask).tolist()
    assert (np.diff(walk(episodes, most=200, ordered=True).at) > 0).all()


def test_batches_are_of_one_size_so_that_none_is_a_crumb() -> None:
    path = walk(counted(*[BATCH // 4 + 1] * 4, 3), most=None)  # type: ignore[arg-type]
    assert len(path) == BATCH + 2
    assert [len(clip) for _, clip in path.batches()] == [BATCH // 2 + 1] * 2


def test_neighbours_are_labelled_and_of_the_same_episode() -> None:
    episodes = counted(9, 3, 12)
    assert np.flatnonzero(surrounded(episodes, 0)).tolist() == np.flatnonzero(episodes.mask).tolist()
    assert np.flatnonzero(surrounded(episodes, 3)).tolist() == [3, 4, 12 + 3, 12 + 4, 12 + 5, 12 + 6, 12 + 7]
    mask = episodes.mask
    mask[12 + 9] = False
    thinned = Episodes(episodes.reader, labels=mask)
    assert np.flatnonzero(surrounded(thinned, 3)).tolist() == [3, 4, 12 + 3, 12 + 4, 12 + 5]


def test_folds_never_part_a_group() -> None:
    groups = np.repeat(np.arange(7), 5)
    folds = fold(groups)
    assert len(set(folds)) == 5 and all(len(set(folds[groups == g])) == 1 for g in range(7))
    assert fold(np.zeros(10)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]  # one episode: stretches of it


class Learner(nn.Module):
    """A module in training mode that draws and counts; judging must leave all of it as it was."""

    seen = frozenset[str]()

    def __init__(self, bad: float = 0.0, short: bool = False) -> None:
        super().__init__()
        self.layer, self.drop, self.bad, self.short = nn.Linear(1, 2), nn.Dropout(0.5), bad, short
        self.modes: list[tuple[bool, bool]] = []

    def infer(self, clip: Clip) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        assert clip.state is not None
        z = self.drop(self.layer(clip.state[:, 1:])) + self.bad
        return z[:, :, 0] if self.short else z


def test_inference_is_in_evaluation_mode_and_leaves_no_trace() -> None:
    model, path = Learner(), walk(counted(30, 30))
    state = torch.get_rng_state()
    first = infer(model, path)  # type: ignore[arg-type]
    assert model.training and torch.equal(state, torch.get_rng_state()) and set(model.modes) == {(False, False)}
    assert (infer(model, path) == first).all() and first.shape == (58, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite for 58 of 58"):
        infer(Learner(bad=float("nan")), path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Learner\.infer gave \(58, 1\).*wanted \(58, 1, \.\.\.\)"):
        infer(Learner(short=True), path)  # type: ignore[arg-type]
