"""``Check``: one question asked of a model, the number it came to, its null and its limit."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from tacit.evaluate.interval import number
from tacit.evaluate.report import Value
from tacit.evaluate.verdict.exam import Exam

Outcome = Literal["pass", "fail", "abstain"]
Ailment = Literal[
    "not enough data", "collapsed", "leaking", "misaligned", "state-entangled", "too deterministic", "distracted",
    "unstable",
]  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """Where a number stops being good, and why there."""

    at: float
    least: bool  # the number must be at least this; else at most
    why: str

    def kept(self, value: float) -> bool:
        return value >= self.at if self.least else value <= self.at

    def __str__(self) -> str:
        return f"{'at least' if self.least else 'at most'} {number(self.at)}"


@dataclass(frozen=True)
class Check:
    """What one question came to."""

    code: str
    name: str
    question: str
    outcome: Outcome
    value: Value | None = None
    null: float | None = None  # the same number where there is nothing to be found
    against: str = ""  # what the null is
    limit: Limit | None = None
    names: Ailment | None = None  # what it is called when it fails
    note: str = ""  # why it abstains, or what it would say beside its number
    more: tuple[Value, ...] = ()

    @property
    def sure(self) -> float:
        """How likely the outcome is with other episodes, by the number's interval; 1 where there is none."""
        value, limit = self.value, self.limit
        if value is None or limit is None or value.value is None or value.low is None or value.high is None:
            return 1.0
        spread = (value.high - value.low) / (2 * NormalDist().inv_cdf(0.975))
        apart = abs(value.value - limit.at)
        return NormalDist().cdf(apart / spread) if spread > 0 else 1.0


# Set by the models of ``bench/planted.py`` in three of its worlds, a toy among them: between the worst of the good ones
# and the best of those with the fault that a number is about. What those worlds cannot tell (swayed, hit, thrift) is as
# published, or a first setting.
LIMITS: dict[str, Limit] = {
    "used": Limit(0.5, True, "with another clip's latent at least twice as much is missed"),
    "alive": Limit(0.3, True, "codes that are used less evenly are mostly spare"),
    "rank": Limit(1.05, True, "whatever happens, the latent says one thing"),
    "copy": Limit(0.55, False, "what was done paints no frame where another is; a frame that is carried does"),
    "leak": Limit(0.01, False, "what is predicted may hear of the future through the latent alone"),
    "gap": Limit(0.1, False, "what is seen should add no more to what the latent tells"),
    "null": Limit(0.45, False, "with the latent of no change less than half of the usual change is made"),
    "seeds": Limit(0.75, True, "two seeds found the same up to an affine map, or one of them was lucky"),
    "gain": Limit(0.0, True, "with the fewest labels it tells more of the action than anything that has none"),
    "known": Limit(0.15, True, "where what is seen tells the action, latents are known by a clear lead of labels"),
    "nuisance": Limit(0.2, False, "more than so much of what no action moves is kept"),
    "hit": Limit(0.67, True, "what is asked about comes out twice as often as by guessing among three"),
    "swayed": Limit(0.2, False, "other chance moves the latent less than another action does"),
    "thrift": Limit(4.0, True, "fewer labels by this factor are what latent actions are for"),
    "settled": Limit(0.7, False, "what is seen tells the action, so that nothing is left for a latent to say"),
    "overfit": Limit(0.2, False, "what was learnt by heart is not known of new episodes"),
    "jumps": Limit(0.03, False, "where a recording jumps no action leads from one frame to the next"),
    "hindsight": Limit(0.5, False, "who stands still after a move does not move"),
    "rows": Limit(200.0, True, "fewer transitions give no number an interval worth having"),
}


def told(*, good: bool) -> Outcome:
    """What a number within its limit, or beyond it, comes to."""
    return "pass" if good else "fail"


def lacking(exam: Exam, *, predict: bool = False) -> str:
    """Why a check cannot be made of half a model."""
    if not exam.encodes:
        return "this model has no encode"
    return "this model has no predict" if predict and not exam.predicts else ""
