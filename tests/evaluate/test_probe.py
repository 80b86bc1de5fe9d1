"""Probes against scikit-learn, and against planted latents whose worth is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as Oracle
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from tacit.clip import Clip, Episode, Space
from tacit.data.episodes import Episodes
from tacit.data.toys import dots
from tacit.data.toys import linear as trajectories
from tacit.envs.dots import Board
from tacit.evaluate.holdout import fold
from tacit.evaluate.probe import STRENGTHS, Ridge, gather, linear, network, probe, probes
from tacit.evaluate.tally import gain, score, tally, targets
from tacit.part import Part

PLANE, CHOICE = Space("continuous", 2), Space("discrete", 4)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def regression(
    random: np.random.Generator, *, rows: int, inputs: int, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = random.normal(size=(rows, inputs)) * random.uniform(0.1, 10, inputs) + random.normal(size=inputs)
    y = x[:, :3] @ random.normal(size=(3, 2)) + noise * random.normal(size=(rows, 2)) + 5
    return x, y, np.sort(random.integers(8, size=rows))


@pytest.mark.parametrize(("rows", "inputs"), [(120, 6), (40, 90)])
def test_ridge_is_scikit_learns_with_the_strength_that_episodes_choose(
    rows: int, inputs: int, random: np.random.Generator
) -> None:
    x, y, groups = regression(random, rows=rows, inputs=inputs)
    ours = Ridge.fit(x, y, groups=groups)
    scaled, scaler = StandardScaler().fit_transform(x), StandardScaler().fit(x)
    errors = np.zeros(len(STRENGTHS))
    for number in np.unique(fold(groups)):
        held = fold(groups) == number
        for i, strength in enumerate(STRENGTHS):
            oracle = Oracle(alpha=strength * (~held).sum()).fit(scaled[~held], y[~held])
            errors[i] += ((oracle.predict(scaled[held]) - y[held]) ** 2).sum()
    assert ours.strengths == (STRENGTHS[errors.argmin()],)
    new = random.normal(size=(20, inputs)) * 3
    oracle = Oracle(alpha=ours.strengths[0] * rows).fit(scaled, y)
    np.testing.assert_allclose(ours(new), oracle.predict(scaler.transform(new)), rtol=1e-6, atol=1e-6)


def test_the_strength_suits_the_noise_and_each_task_has_its_own(random: np.random.Generator) -> None:
    x, clear, groups = regression(random, rows=60, inputs=40, noise=1e-3)
    blur = clear + 300 * random.normal(size=clear.shape)
    both = Ridge.fit(x, np.concatenate([clear, blur], 1), groups=groups, tasks=2)
    assert both.strengths[0] <= 1e-3 < 1 <= both.strengths[1]
    for i, y in enumerate((clear, blur)):
        alone = Ridge.fit(x, y, groups=groups)
        np.testing.assert_allclose(both(x)[:, 2 * i : 2 * i + 2], alone(x), rtol=1e-6, atol=1e-6)


def test_folds_are_whole_episodes(random: np.random.Generator) -> None:
    """A row repeated within its episode must not vouch for itself: noise then wants the firmest ridge."""
    x, groups = np.repeat(random.normal(size=(60, 30)), 10, axis=0), np.repeat(np.arange(60), 10)
    y = np.repeat(random.normal(size=(60, 1)), 10, axis=0)
    assert Ridge.fit(x, y, groups=groups).strengths[0] >= 1
    search = GridSearchCV(Oracle(), {"alpha": [s * 480 for s in STRENGTHS]}, cv=PredefinedSplit(np.arange(600) % 5))
    assert search.fit(x, y).best_params_["alpha"] < 480 * 0.01  # by rows it looks learnable


def test_scores_are_scikit_learns(random: np.random.Generator) -> None:
    owner = np.repeat(np.arange(9), 11)
    said, true = random.normal(size=(99, 2)), random.normal(size=(99, 2)) * [1, 20]
    said = said + 0.7 * true
    assert score(tally(said, true, space=PLANE, owner=owner), PLANE).value == pytest.approx(r2_score(true, said))
    flat = np.concatenate([true[:, :1], np.full((99, 1), 3.3)], 1)  # a dimension that never varies has no R2
    assert score(tally(said, flat, space=PLANE, owner=owner), PLANE).value == pytest.approx(
        r2_score(true[:, 0], said[:, 0])
    )
    logits, chosen = random.normal(size=(99, 4)), random.integers(4, size=99)
    found = score(tally(logits, chosen, space=CHOICE, owner=owner), CHOICE)
    assert found.value == pytest.approx(accuracy_score(chosen, logits.argmax(1))) and found.n == 9


def test_intervals_are_over_episodes_and_differences_are_paired(random: np.random.Generator) -> None:
    chosen, owner = np.zeros(400, int), np.repeat(np.arange(40), 10)
    right = np.repeat(random.random(40) < 0.5, 10)  # an episode stands or falls as a whole
    logits = np.where(right[:, None], targets(chosen, CHOICE), targets(chosen + 1, CHOICE))
    one = tally(logits, chosen, space=CHOICE, owner=owner)
    wide = score(one, CHOICE)
    assert 0.25 < wide.high - wide.low < 0.4 and wide.n == 40  # as of 40 coins, not of 400
    assert wide.high - wide.low > 2.5 * (lambda i: i.high - i.low)(
        score(tally(logits, chosen, space=CHOICE, owner=np.arange(400)), CHOICE)
    )
    same = gain(one, one, space=CHOICE)
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize("layout", ["compass", "clouds"])
def test_choices_are_read_as_well_as_by_logistic_regression(layout: str, random: np.random.Generator) -> None:
    """Least squares alone cannot see the class in the middle of the others, such as standing still."""
    centres = (
        np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) if layout == "compass" else random.normal(size=(5, 2))
    )
    shares = [0.2] * 5 if layout == "compass" else [0.6, 0.25, 0.05, 0.05, 0.05]
    chosen, groups = random.choice(5, p=shares, size=600), np.repeat(np.arange(12), 50)
    x = centres[chosen] + (0.15 if layout == "compass" else 0.5) * random.normal(size=(600, 2))
    train = groups < 8
    oracle = LogisticRegression(C=100).fit(x[train], chosen[train]).score(x[~train], chosen[~train])
    read = linear(x[train], np.eye(5)[chosen[train]], groups=groups[train], discrete=True)
    ours = (read(x[~train]).argmax(1) == chosen[~train]).mean()
    assert ours >= oracle - 0.02
    if layout == "compass":
        plain = Ridge.fit(x[train], np.eye(5)[chosen[train]], groups=groups[train])
        assert ours > 0.95 and (plain(x[~train]).argmax(1) == chosen[~train]).mean() < 0.9


def test_the_network_stops_where_other_episodes_say(random: np.random.Generator) -> None:
    """What marks an episode must not be learned by heart from its other rows."""
    x, groups = np.repeat(random.normal(size=(40, 4)), 20, axis=0), np.repeat(np.arange(40), 20)
    y = np.repeat(random.normal(size=(40, 1)), 20, axis=0)
    read = network(x[groups < 25], y[groups < 25], groups=groups[groups < 25], discrete=False)
    assert np.std(read(x)) < 0.3  # by rows it would be near 1: each episode's own number


def test_the_network_reads_what_no_line_can_and_stops_before_it_learns_noise(random: np.random.Generator) -> None:
    x, groups = random.normal(size=(800, 3)), np.repeat(np.arange(20), 40)
    train = groups < 14
    bent, noise = np.abs(x[:, :1]) + x[:, 1:2] * x[:, 2:], random.normal(size=(800, 1))

    def r2(read: Any, y: np.ndarray) -> float:
        return float(r2_score(y[~train], read(x[~train])))

    settings: Any = {"groups": groups[train], "discrete": False}
    assert r2(linear(x[train], bent[train], **settings), bent) < 0.1
    assert r2(network(x[train], bent[train], **settings), bent) > 0.9
    assert r2(network(x[train], noise[train], **settings), noise) > -0.1


class Read:
    """A latent that is a function of the state before and the state after."""

    seen = frozenset[str]()

    def __init__(self, function: Any, past: int = 0) -> None:
        self.function, self.past = function, past

    def infer(self, clip: Clip) -> Tensor:
        assert clip.state is not None and clip.actions is None  # labels never reach a model that is judged
        return self.function(clip.state[:, :-1], clip.state[:, 1:])


CHANGE = Read(lambda now, then: then - now)
PRESENT = Read(lambda now, then: now)
CONSTANT = Read(lambda now, then: torch.zeros_like(now) + 0.3)


def test_a_latent_that_is_the_action_is_read_and_one_that_is_nothing_is_not() -> None:
    episodes = trajectories(episodes=60, length=21, exogenous=2, noise=0.01).episodes
    high, low = probe(CHANGE, episodes), probe(CONSTANT, episodes)
    assert high.value is not None and high.value > 0.95 and high.low is not None and high.low > 0.9
    assert low.value is not None and abs(low.value) < 0.05 and low.low is not None and low.low < 0.05
    assert high.name == "linear probe of z" and "60 held-out episodes" in high.data and high.note.startswith("R2")
    assert 10 < high.n < 40  # the episodes tested, not all


def test_choices_have_chance_beside_them() -> None:
    episodes = dots(Board(discrete=True, goal=False, wrap=False, room=2), episodes=40, length=16).episodes
    moved, nothing = probe(CHANGE, episodes), probe(CONSTANT, episodes)
    assert moved.value is not None and moved.value > 0.95 and nothing.value is not None and nothing.value < 0.35
    assert "always the commonest action has 0.2" in moved.note and moved.note.startswith("accuracy")


def test_labels_are_as_few_as_was_asked() -> None:
    episodes = trajectories(episodes=40, length=17, exogenous=2, noise=0.3).episodes
    few, many = probe(CHANGE, episodes, labels=24), probe(CHANGE, episodes)
    assert few.note == "R2; fitted on 24 labels" and few.name == "linear probe of z, 24 labels"
    assert few.value is not None and many.value is not None and few.value < many.value - 0.05 and few.n == many.n
    with pytest.raises(ValueError, match="100000 labels were asked for"):
        probe(CHANGE, episodes, labels=100_000)


def test_a_state_in_place_of_an_action_is_found_out_by_the_observation_alone() -> None:
    """An expert's actions can be read from where it stands: that is no merit of a latent."""
    episodes = trajectories(episodes=60, length=21, exogenous=2, determinism=0.8, noise=0.01).episodes
    found = {v.name: v.value for v in probes(PRESENT, episodes, kinds=("linear",))}
    assert found["linear probe of z"] > 0.7 and found["linear probe of o"] > 0.7  # type: ignore[operator]
    assert abs(found["what z adds to o, linear"]) < 0.02  # type: ignore[operator]
    assert found["linear probe of o"] == probe(None, episodes).value
    assert found["linear probe of z and o"] == probe(PRESENT, episodes, condition=True).value
    better = {v.name: v for v in probes(CHANGE, episodes, kinds=("linear",))}["what z adds to o, linear"]
    assert better.low is not None and better.low > 0.05


def turning(random: np.random.Generator, *, count: int = 50, length: int = 25) -> Episodes:
    """State is a heading and a place; the latent will be the action as seen from the heading."""
    angle = random.uniform(0, 2 * np.pi, (count, length))
    actions = random.normal(size=(count, length - 1, 2))
    place = np.concatenate([np.zeros((count, 1, 2)), actions.cumsum(1)], 1)
    state = np.concatenate([np.cos(angle)[..., None], np.sin(angle)[..., None], place], -1).astype(np.float32)
    pairs = zip(state, actions.astype(np.float32), strict=True)
    return Episodes.of([Episode(state=s, actions=a) for s, a in pairs], space=Space("continuous", 2, -9, 9))


def seen_from_the_heading(now: Tensor, then: Tensor) -> Tensor:
    (cosine, sine), moved = now[..., :2].unbind(-1), (then - now)[..., 2:]
    return torch.stack(
        [cosine * moved[..., 0] + sine * moved[..., 1], cosine * moved[..., 1] - sine * moved[..., 0]], -1
    )


def test_a_latent_whose_meaning_hangs_on_the_state_shows_a_gap(random: np.random.Generator) -> None:
    def heading(clip: Clip) -> Tensor:
        assert clip.state is not None
        return clip.state[:, -2, :2]

    found = {
        v.name: v for v in probes(Read(seen_from_the_heading), turning(random), kinds=("nonlinear",), observe=heading)
    }
    alone, both = found["nonlinear probe of z"].value, found["nonlinear probe of z and o"].value
    assert alone is not None and both is not None and alone < 0.1 and both > 0.8
    gap = found["what o adds to z, nonlinear"]
    assert gap.low is not None and gap.low > 0.7


class Encoder(Part):
    def __init__(self, *, into: int, out: int) -> None:
        self.layer = nn.Linear(into, out)


class Model(Part):
    """A latent action model whose trained part came in as an argument."""

    past = 0

    def __init__(self, *, encoder: Encoder) -> None:
        self.encoder = encoder

    def infer(self, clip: Clip) -> Tensor:
        assert clip.state is not None
        return self.encoder.layer(clip.state[:, 1:] - clip.state[:, :-1])


def test_training_is_held_against_no_training() -> None:
    episodes = trajectories(episodes=40, length=17, actions=2, exogenous=2, noise=0.01, size=16).episodes
    flat = episodes.stack()
    change = flat["next_state"] - flat["state"]
    model = Model(encoder=Encoder(into=16, out=2))
    best = np.linalg.lstsq(change, flat["actions"], rcond=None)[0]
    with torch.no_grad():
        model.encoder.layer.weight.copy_(torch.from_numpy(best.T))
        model.encoder.layer.bias.zero_()
    found = {v.name: v.value for v in probes(model, episodes, kinds=("linear",))}
    assert found["linear probe of z"] > 0.95 > found["linear probe of untrained z"] + 0.05  # type: ignore[operator]


def test_where_nothing_can_be_said_it_says_why() -> None:
    toy = trajectories(episodes=12, length=9).episodes
    bare = Episodes.of([toy.episode(i).replace(actions=None) for i in range(12)])
    for episodes, reason in [
        (bare, "nobody recorded an action"),
        (toy.unlabelled(), "labels are visible in 0 of 12 episodes"),
        (toy.keep_labels(8, stretch=8), "labels are visible in 1 of 12 episodes"),
    ]:
        found = probe(CHANGE, episodes)
        assert found.value is None and found.low is None and reason in found.note
        every = probes(CHANGE, episodes)
        assert len(every) == 10 and all(v.value is None and reason in v.note for v in every)
    frozen = dots(Board(discrete=True, goal=False), episodes=8, length=9).episodes
    space = frozen.spec.space
    same = Episodes.of(
        [dataclasses.replace(frozen.episode(i), actions=np.zeros(8, int)) for i in range(8)], space=space
    )
    assert probe(CHANGE, same).note == "every label is the same action"
    late = Read(CHANGE.function, past=8)
    assert "9 frames" not in probe(CHANGE, toy).note and "10 frames that the model looks at" in probe(late, toy).note


def test_a_second_split_is_not_the_first_again() -> None:
    """Episodes held out by a seed all lie below its line; the same seed would put nearly all on the tested side."""
    held = trajectories(episodes=400, length=4).episodes.split(0.4)[1]
    sides = gather({"z": CHANGE}, held)
    assert not isinstance(sides, str)
    tested = len(np.unique(sides.test.owner)) / len(held)
    assert 0.3 < tested < 0.5


def test_the_same_question_has_the_same_answer() -> None:
    episodes = trajectories(episodes=20, length=9).episodes
    assert probe(CHANGE, episodes, kind="nonlinear") == probe(CHANGE, episodes, kind="nonlinear")
