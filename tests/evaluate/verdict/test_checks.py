"""Every check passes what is sound, fails what has its fault, and abstains where it cannot tell, on models by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Space
from tacit.data import toys
from tacit.data.episodes import Episodes
from tacit.data.twins import Twins, twins
from tacit.envs.dots import Board, Dots
from tacit.evaluate.verdict import Check, Pair, Verdict, checks, examine, labelled
from tacit.evaluate.verdict.exam import Exam
from tacit.evaluate.verdict.verdict import verdict_of

GREY = 128 / 255
SIDE = 16


def board(distractor: float) -> Board:
    return Board(size=SIDE, goal=False, wrap=False, room=5.0, distractor=distractor, haste=0.6)


@functools.cache
def filmed(distractor: float = 0.0, *, seed: int = 0) -> toys.Toy:
    """Play on a board whose body stays away from the edges."""
    return toys.dots(board(distractor), episodes=120, length=10, seed=seed)


def recorded(distractor: float = 0.0, *, seed: int = 0) -> Episodes:
    return filmed(distractor, seed=seed).episodes


def bright(o: Tensor) -> Tensor:
    return (o - GREY).clamp(min=0).mean(1)


def dark(o: Tensor) -> Tensor:
    return (GREY - o).clamp(min=0.004).sub(0.004).mean(1)


def centre(weight: Tensor) -> Tensor:
    """Where the weight lies, in pixels, (N, 2): right and down."""
    at = torch.arange(SIDE, dtype=weight.dtype)
    whole = weight.sum((1, 2)).clamp(min=1e-6)
    return torch.stack([(weight.sum(1) * at).sum(1) / whole, (weight.sum(2) * at).sum(1) / whole], 1)


def shifted(x: Tensor, by: Tensor) -> Tensor:
    """Pictures moved by so many pixels, (N, 2)."""
    turn = torch.eye(2, 3).repeat(len(x), 1, 1)
    turn[:, :, 2] = -2 * by / SIDE
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def moves(o: Tensor, after: Tensor) -> Tensor:
    """What the body did: the sound latent."""
    return centre(bright(after)) - centre(bright(o))


def moved(o: Tensor, z: Tensor) -> Tensor:
    """The body where the latent brings it, and everything else where it was."""
    lit = (o - GREY).clamp(min=0)
    return o - lit + shifted(lit, z)


def turned(o: Tensor, z: Tensor, *, way: float) -> Tensor:
    """A latent turned by an angle that where the body is decides."""
    angle = way * 1.5 * centre(bright(o))[:, 0]
    one, two = torch.cos(angle), torch.sin(angle)
    return torch.stack([one * z[:, 0] - two * z[:, 1], two * z[:, 0] + one * z[:, 1]], 1)


def strays(o: Tensor, after: Tensor) -> Tensor:
    return centre(dark(after)) - centre(dark(o))


def strayed(o: Tensor, z: Tensor) -> Tensor:
    low = (GREY - o).clamp(min=0)
    return o + low - shifted(low, z)


class Peeking:
    """Predicts by what it remembers of the future, beside the channel."""

    def encode(self, o: Tensor, after: Tensor) -> Tensor:
        return moves(o, after)

    def infer(self, clip: Any) -> Tensor:
        return PAIRS["sound"].infer(clip)

    def predict(self, clip: Any, latents: Tensor) -> Tensor:
        return torch.lerp(PAIRS["sound"].predict(clip, latents), PAIRS["sound"].targets(clip), 0.5)

    def targets(self, clip: Any) -> Tensor:
        return PAIRS["sound"].targets(clip)

    seen: frozenset[str] = frozenset()


PAIRS: dict[str, Any] = {
    "sound": Pair(encode=moves, predict=moved),
    "unheard": Pair(encode=moves, predict=lambda o, z: o),
    "constant": Pair(encode=lambda o, after: torch.ones(len(o), 2), predict=moved),
    "one direction": Pair(encode=lambda o, after: moves(o, after).sum(1, keepdim=True).expand(-1, 2), predict=moved),
    "carried": Pair(encode=lambda o, after: after.flatten(1), predict=lambda o, z: z.unflatten(1, (3, SIDE, SIDE))),
    "peeking": Peeking(),
    "turned": Pair(
        encode=lambda o, after: turned(o, moves(o, after), way=1.0),
        predict=lambda o, z: moved(o, turned(o, z, way=-1.0)),
    ),
    "drifting": Pair(encode=moves, predict=lambda o, z: moved(o, z + torch.tensor([0.8, 0.0]))),
    "straying": Pair(encode=strays, predict=strayed),
    "both": Pair(
        encode=lambda o, after: torch.cat([moves(o, after), strays(o, after)], 1),
        predict=lambda o, z: strayed(moved(o, z[:, :2]), z[:, 2:]),
    ),
    "half of one": Pair(encode=moves),
    "other half": Pair(predict=moved),
    "features": Pair(encode=moves, predict=lambda o, z: centre(bright(o)) + z, features=lambda o: centre(bright(o))),
}


def exam(name: str, *, distractor: float = 0.0, labelled: bool = True, more: str = "") -> Exam:
    data = recorded(distractor)
    extra: dict[str, Any] = {}
    if "twins" in more:
        extra["twins"] = lived(distractor)
    if "same" in more:
        turn = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
        extra["siblings"] = (Pair(encode=lambda o, after: moves(o, after) @ turn),)
    if "other" in more:
        extra["siblings"] = (PAIRS["turned"],)
    if distractor:
        extra["tracks"] = tuple(filmed(distractor).exogenous)
    if "learnt" in more:
        extra["learnt"] = recorded(distractor, seed=1)
    return Exam(PAIRS[name], data if labelled else data.unlabelled(), most=512, **extra)


@functools.cache
def verdict(name: str, more: str = "") -> Verdict:
    return verdict_of(exam(name, more=more), title=name, source="D")


@functools.cache
def lived(distractor: float) -> Twins:
    return twins(lambda: Dots(board(distractor)), count=120, ways=3)


def test_what_is_sound_works() -> None:
    found = verdict("sound", more="twins learnt same")
    assert found.name == "working" and not found.ailments and found.confidence > 0.8
    passed = {c.code for c in found.checks if c.outcome == "pass"}
    assert passed >= {"C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C9", "A", "D"}
    assert "failed" in found.headline and found.command == ""


FAULTS: list[tuple[str, Callable[[Exam], Check], str, dict[str, Any]]] = [
    ("unheard", checks.used, "collapsed", {}),
    ("constant", checks.alive, "collapsed", {}),
    ("one direction", checks.alive, "collapsed", {}),
    ("carried", checks.copies, "leaking", {}),
    ("peeking", checks.copies, "leaking", {}),
    ("turned", checks.transported, "state-entangled", {}),
    ("turned", checks.transported, "state-entangled", {"labelled": False}),
    ("turned", checks.causal, "state-entangled", {"more": "twins"}),
    ("drifting", checks.nothing, "distracted", {}),
    ("sound", checks.stable, "unstable", {"more": "other"}),
    ("straying", checks.minimal, "distracted", {"distractor": 0.8}),
    ("both", checks.causal, "distracted", {"distractor": 0.8, "more": "twins"}),
]


@pytest.mark.parametrize(("name", "question", "ailment", "more"), FAULTS)
def test_every_fault_is_found_and_named(
    name: str, question: Callable[[Exam], Check], ailment: str, more: dict[str, Any]
) -> None:
    found = question(exam(name, **more))
    assert found.outcome == "fail" and found.names == ailment, str(found)
    sound = question(exam("sound", **{**more, "more": more.get("more", "").replace("other", "same")}))
    assert sound.outcome == "pass", str(sound)


@pytest.mark.parametrize(("name", "wanted"), [("carried", "leaking"), ("turned", "state-entangled")])
def test_the_first_ailment_is_the_verdict_and_says_what_to_try(name: str, wanted: str) -> None:
    found = verdict(name)
    assert found.name == wanted and found.ailments[0] == wanted
    assert found.command.startswith("tacit ") and found.advice and found.headline.lower().startswith(wanted)


def test_a_model_of_one_half_is_asked_what_it_can_be_asked() -> None:
    half, other = exam("half of one"), exam("other half")
    for question in (checks.used, checks.copies, checks.nothing):
        assert question(half).outcome == "abstain" and "no predict" in question(half).note
    assert checks.transported(half).outcome == checks.alive(half).outcome == "pass"
    told = verdict("other half")
    assert all(c.outcome == "abstain" and (c.code == "C0" or "no encode" in c.note) for c in told.checks)
    assert told.name == "not enough data" and other.predicts


def test_seeds_that_look_back_differently_far_are_asked_about_the_same_transitions() -> None:
    farther = Pair(encode=moves)
    farther.past = 1
    found = checks.stable(Exam(PAIRS["sound"], recorded(), siblings=(farther,), most=256))
    assert found.outcome == "pass" and found.value is not None and found.value.value > 0.99  # type: ignore[operator]


def test_without_labels_what_wants_them_abstains() -> None:
    bare = exam("sound", labelled=False)
    step, *rest = (*labelled.alignable(bare), *labelled.useful(bare))
    assert {c.outcome for c in rest} == {"abstain"}
    assert step.outcome == "pass" and "of labels nothing is known" in step.note
    assert checks.causal(bare).outcome == checks.stable(bare).outcome == "abstain"


def test_a_model_of_features_is_asked_what_it_can_be_asked() -> None:
    found = exam("features")
    assert not found.pictures and checks.used(found).outcome == "pass"
    assert checks.transported(found).outcome == "pass" and not checks.transported(found).more


def labelled_by(data: Episodes, act: Callable[[Any], np.ndarray], space: Space) -> Episodes:
    """The same pictures with other labels."""
    changed = (e.replace(actions=act(e)) for e in (data.episode(i) for i in range(len(data))))
    return Episodes.of(changed, space=space, fps=10.0)


def test_labels_out_of_step_are_called_misaligned() -> None:
    def late(e: Any) -> np.ndarray:
        return np.concatenate([e.actions[:1], e.actions[:-1]]).astype(np.float32)

    data = recorded()
    assert data.spec.space is not None
    found = examine(PAIRS["sound"], labelled_by(data, late, data.spec.space), most=512)
    assert found.name == "misaligned" and found["A"].outcome == "fail" and found["A"].value.value == 1


def test_video_that_settles_the_action_is_called_so() -> None:
    """An expert that heads for the middle: what is seen tells what is done."""
    shown = toys.dots(
        Board(size=SIDE, goal=False, wrap=False, room=10.0), episodes=120, length=6, determinism=1.0
    ).episodes
    varied, _ = labelled.useful(Exam(PAIRS["one direction"], shown, most=512))
    assert varied.outcome == "fail" and varied.names == "too deterministic"
    assert varied.value is not None and varied.value.value is not None and varied.value.value > 0.7
    varied, _ = labelled.useful(exam("sound"))
    assert varied.outcome == "pass"


def test_too_little_is_called_not_enough() -> None:
    few = checks.enough(Exam(PAIRS["sound"], recorded().select(range(3))))
    assert few.outcome == "fail" and few.names == "not enough data"
    assert checks.enough(exam("sound")).outcome == "abstain", "it was not told what the model was trained on"
    twice = Episodes.of([recorded(0.0, seed=1).episode(0)] * 8, space=recorded().spec.space, fps=10.0)
    copied = checks.enough(Exam(PAIRS["sound"], recorded(), learnt=twice))
    assert copied.outcome == "fail" and "12 % of them different" in copied.note
