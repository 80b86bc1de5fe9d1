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

from tacit.clip import Episode, Space
from tacit.data import toys
from tacit.data.episodes import Episodes
from tacit.data.twins import Twins, twins
from tacit.envs.dots import Board, Dots
from tacit.evaluate.verdict import Check, Pair, Verdict, checks, examine, further, labelled
from tacit.evaluate.verdict.exam import Exam
from tacit.evaluate.verdict.score import score
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
    "swung": Pair(
        encode=lambda o, after: turned(o, moves(o, after), way=0.2),
        predict=lambda o, z: moved(o, turned(o, z, way=-0.2)),
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
    ("swung", checks.causal, "state-entangled", {"more": "twins"}),
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
    far = checks.causal(exam("turned", more="twins"))
    assert far.outcome == "abstain" and "no line tells" in far.note, "there is no asking for another future"


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


def test_labels_that_lie_early_are_misaligned_and_a_body_that_answers_late_is_not() -> None:
    def shown(late: float) -> Episodes:
        """The body moves by its own order, and by so much of the one before."""
        random, episodes = np.random.default_rng(3), []
        for _ in range(60):
            orders = random.normal(size=(21, 2)).astype(np.float32)
            moves = (1 - late) * orders[1:] + late * orders[:-1]
            state = np.concatenate([np.zeros((1, 2)), moves.cumsum(0)]).astype(np.float32)
            episodes.append(Episode(state=state, actions=orders[1:]))
        return Episodes.of(episodes, space=Space("continuous", 2, low=-4.0, high=4.0), fps=10.0)

    pair = Pair(encode=lambda o, after: after - o, predict=lambda o, z: o + z, of="state")
    body = labelled.alignable(Exam(pair, shown(0.75), most=512))[0]
    assert body.outcome == "pass" and body.value is not None and body.value.value == -1, str(body)
    assert "answers late" in body.note
    early = labelled.alignable(Exam(pair, shown(1.0), most=512))[0]
    assert early.outcome == "fail" and early.names == "misaligned" and early.value.value == -1  # type: ignore[union-attr]


class Long:
    """Moves told of the last two steps, by a model that is given three frames: or, in context, of the last alone."""

    past = 1
    seen: frozenset[str] = frozenset()

    def __init__(self, *, both: bool) -> None:
        self.first = 0 if both else 1

    def infer(self, clip: Any) -> Tensor:
        o = clip.frames.float() / 255
        own = moves(o[:, -3 + self.first], o[:, -1])
        return torch.stack([torch.zeros_like(own), own], 1)

    def predict(self, clip: Any, latents: Tensor) -> Tensor:
        o = clip.frames.float() / 255
        guess = moved(o[:, -3 + self.first], latents[:, -1])
        return torch.stack([o[:, -2], guess], 1)

    def targets(self, clip: Any) -> Tensor:
        return clip.frames[:, 1:].float() / 255  # type: ignore[no-any-return]


def test_latents_of_several_steps_are_misaligned_and_a_look_back_for_context_is_not() -> None:
    found = labelled.alignable(Exam(Long(both=True), recorded(), most=256))[0]
    assert found.outcome == "fail" and found.names == "misaligned" and "several steps" in found.note, str(found)
    assert labelled.alignable(Exam(Long(both=False), recorded(), most=256))[0].outcome == "pass"


def test_episodes_strung_together_are_misaligned() -> None:
    """Windows that cross the ends of episodes: every fifth transition leads from one place to any other."""
    data = recorded()
    pieces = [data.episode(i) for i in np.random.default_rng(0).permutation(len(data))]

    def strung(some: list[Any]) -> Episode:
        acts = np.concatenate([np.concatenate([e.actions[:4], e.actions[3:4]]) for e in some])[:-1]
        return Episode(frames=np.concatenate([e.frames[:5] for e in some]), actions=acts)

    glued = Episodes.of((strung(pieces[i : i + 6]) for i in range(0, 120, 6)), space=data.spec.space, fps=10.0)
    found = labelled.alignable(Exam(PAIRS["sound"], glued, most=512))[0]
    assert found.outcome == "fail" and found.names == "misaligned" and "cross the ends" in found.note, str(found)
    bare = labelled.alignable(Exam(PAIRS["sound"], glued.unlabelled(), most=512))[0]
    assert bare.outcome == "fail", "it is seen without labels too"


def test_what_was_learnt_by_heart_is_not_enough_data() -> None:
    home = recorded(0.0, seed=1)
    clip = next(home.clips(2).stream(512))
    known = clip.frames.float().flatten(2) / 255  # type: ignore[union-attr]

    def recalled(o: Tensor, z: Tensor) -> Tensor:
        """Right about the frames that it remembers, and a shrug at all others."""
        strange = torch.cdist(o.flatten(1), known[:, 0]).amin(1) > 1e-2
        return torch.where(strange[:, None, None, None], o, moved(o, z))

    own = Episodes.of((Episode(frames=(255 * k.view(2, 3, SIDE, SIDE)).round().byte().permute(0, 2, 3, 1).numpy())
                       for k in known), fps=10.0)  # fmt: skip
    found = checks.enough(Exam(Pair(encode=moves, predict=recalled), recorded(), own, most=256))
    assert found.outcome == "fail" and found.names == "not enough data", str(found)
    good = checks.enough(Exam(PAIRS["sound"], recorded(), home, most=256))
    assert good.outcome == "pass" and good.value is not None and abs(good.value.value or 0) < 0.05
    idle = checks.enough(Exam(PAIRS["unheard"], recorded(), home, most=256))
    assert idle.outcome == "abstain" and "too little" in idle.note


def test_further_numbers_say_how_long_predictions_last_and_where_gradients_come_from() -> None:
    sound, peeking = exam("sound"), exam("peeking")
    far = {v.name: v.value for v in further.drift(sound)}
    assert list(far) == [f"missed {k} steps on by its own predictions" for k in (2, 4)]
    assert all(v is not None and v < 0.5 for v in far.values())
    assert further.gradient(sound).value == 0 and 0.3 < (further.gradient(peeking).value or 0) < 3
    assert further.drift(Exam(PAIRS["features"], recorded(), most=256)) == [], "what it predicts cannot be shown to it"


def test_two_steps_are_the_sum_of_theirs_where_latents_add_up() -> None:
    (sound,) = further.additive(exam("sound"))
    ways = Pair(encode=lambda o, after: F.normalize(moves(o, after)))  # where to, and not how far
    (bent,) = further.additive(Exam(ways, recorded(), most=512))
    assert sound.value is not None and sound.value < 0.02 and bent.value is not None and bent.value > 0.2
    short = Episodes.of(Episode(frames=recorded().episode(i).frames[:2]) for i in range(4))  # type: ignore[index]
    assert further.additive(Exam(PAIRS["sound"], short)) == [], "no episode has two steps"
    assert "sum of theirs" in " ".join(v.name for v in verdict("sound")["C5"].more)


def test_another_bodys_latents_are_tried_here() -> None:
    pair = toys.dots(Board(size=SIDE, goal=False, wrap=False, room=5.0, body="pair"), episodes=40, length=10).episodes
    (lent,) = further.abroad(exam("sound"), pair)
    assert lent.value is not None and lent.value > 0.8
    (turned_,) = further.abroad(exam("turned"), pair)
    assert turned_.value is not None
    (none,) = further.abroad(exam("half of one"), pair)
    assert none.value is None and "encodes" in none.note


def test_the_score_without_labels_puts_sound_models_first() -> None:
    names = ("sound", "turned", "unheard", "carried")
    found = {name: score(exam(name, labelled=False)).value for name in names}
    assert max(found, key=lambda name: found[name]) == "sound" and found["sound"] > 0.6, str(found)
    assert found["unheard"] == 0 and found["carried"] < 0.3, str(found)
    with pytest.raises(ValueError, match="both halves"):
        score(exam("half of one"))
