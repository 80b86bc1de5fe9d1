"""The verdict: one word for a latent action model, the evidence for it, and what to try next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tacit.data.episodes import Episodes
from tacit.data.twins import Twins
from tacit.evaluate import holdout
from tacit.evaluate.interval import number
from tacit.evaluate.report import strict
from tacit.evaluate.verdict.check import LIMITS, Ailment, Check
from tacit.evaluate.verdict.checks import asked
from tacit.evaluate.verdict.exam import Exam

WORKING = "working"


@dataclass(frozen=True)
class Remedy:
    """What an ailment means, why it is asked for at its place, and what to try."""

    means: str
    place: str  # why it comes before those below it
    advice: str
    command: str  # with {data}


# The first that is found is the verdict, as each makes what comes below it unreadable.
REMEDIES: dict[Ailment, Remedy] = {
    "not enough data": Remedy(
        "it knows its own recordings and not new ones, or there are too few to tell",
        "no number below means anything without data to measure it on",
        "Bring more episodes, and different ones: check for copies first.",
        "tacit data check {data}",
    ),
    "collapsed": Remedy(
        "the latent says the same whatever happens, or nobody listens to it",
        "of a latent that says nothing no other question can be asked",
        "Take a latent without codes, several steps ahead, and less of the future given for nothing.",
        "tacit train tacit --data {data} --held 0.2 --labels 0 --reach 4 --out out/again",
    ),
    "too deterministic": Remedy(
        "what is seen tells the action, so that nothing is left for a latent to say",
        "of such video any latent may look leaking, out of step or bound to its state, and the cure is other video",
        "Add video of play, or look further ahead.",
        "tacit data merge {data} PLAY out/both",
    ),
    "leaking": Remedy(
        "the latent carries the next frame itself, not what was done",
        "a latent that carries the frame passes probes and predictions for the wrong reason",
        "Make the latent narrower, blur it with noise, or move the inverse model's pictures.",
        "tacit train laom --data {data} --held 0.2 --labels 0 --dim 8 --shift 4 --out out/again",
    ),
    "misaligned": Remedy(
        "labels lie beside other transitions than the latents of their actions",
        "with labels out of step every measure that uses them blames the model",
        "Find the offset and move the labels.",
        "tacit data check {data}",
    ),
    "distracted": Remedy(
        "the latent tells of what no action moves",
        "what is foreign in a latent also blurs how its meaning is read in any scene: it must go first",
        "Put a few labels into training.",
        "tacit train laom_labels --data {data} --held 0.2 --labels 256 --out out/again",
    ),
    "state-entangled": Remedy(
        "the same latent means different things in different places",
        "where things are is asked of what is left once nothing foreign is in the latent",
        "Move the inverse model's pictures, so that it cannot say where things are; bring more play.",
        "tacit train laom --data {data} --held 0.2 --labels 0 --dim 16 --shift 4 --out out/again",
    ),
    "unstable": Remedy(
        "another seed finds another latent",
        "the model may be fine and its luck is not: nothing else is wrong",
        "Give the latent one or two numbers more, let their order be learnt, and choose the seed by its score.",
        "tacit train flexlam --data {data} --held 0.2 --labels 0 --out out/again",
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What was found of a model, first match first."""

    name: str  # an ailment, or "working"
    checks: tuple[Check, ...]
    ailments: tuple[Ailment, ...]
    confidence: float
    data: str
    advice: str = ""
    command: str = ""
    seconds: float = 0.0
    title: str = "a latent action model"
    fingerprint: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, code: str) -> Check:
        return next(check for check in self.checks if check.code == code)

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        if all(check.outcome == "abstain" for check in self.checks):
            why = next((f": {check.note}" for check in self.checks if check.code != "C0" and check.note), "")
            return f"Not enough data: nothing could be asked{why}."
        if self.name == WORKING:
            useful, read = self["C10"], self["C7"]
            if read.outcome == "fail":
                return f"Nothing wrong was found, but few labels make nothing of it yet: {read.note}."
            told = useful.note if useful.outcome == "pass" else read.note if read.outcome == "pass" else ""
            passed = sum(check.outcome == "pass" for check in self.checks)
            return (
                f"Working: {passed} checks passed, none failed.{' ' + told[0].upper() + told[1:] + '.' if told else ''}"
            )
        remedy = REMEDIES[self.ailments[0]]
        also = f" Also: {', '.join(self.ailments[1:])}." if len(self.ailments) > 1 else ""
        return f"{self.name[0].upper()}{self.name[1:]}: {remedy.means}.{also}"

    def plain(self) -> dict[str, Any]:
        """All of it as strict JSON."""
        told = {
            "format": "tacit.verdict/1", "verdict": self.name, "headline": self.headline, "ailments": self.ailments,
            "confidence": self.confidence, "advice": self.advice, "next": self.command, "data": self.data,
            "seconds": self.seconds, "title": self.title, "fingerprint": self.fingerprint, "checks": self.checks,
        }  # fmt: skip
        return strict(told, "verdict")

    def __rich__(self) -> RenderableType:
        listed = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("", "check", "is", "wanted", "nothing has"):
            listed.add_column(name, justify="right" if name in ("is", "nothing has") else "left")
        listed.add_column("", style="dim", overflow="fold")
        marks = {"pass": Text("pass", "green"), "fail": Text("FAIL", "bold red"), "abstain": Text("–", "dim")}
        for check in self.checks:
            value = check.value.value if check.value else None
            listed.add_row(
                marks[check.outcome], f"{check.code} {check.name}", "" if value is None else number(value),
                str(check.limit) if check.limit and value is not None else "",
                "" if check.null is None else number(check.null), check.note,
            )  # fmt: skip
        parts: list[RenderableType] = [Text(self.headline, style="bold"), listed]
        if self.command:
            parts.append(Text(f"{self.advice}\nNext: {self.command}"))
        parts.append(Text(f"{self.confidence:.0%} sure, by episodes drawn anew; {self.data}", style="dim"))
        return Group(*parts)


def examine(
    model: holdout.Inferring,
    episodes: Episodes,
    *,
    learnt: Episodes | None = None,
    siblings: Sequence[holdout.Inferring] = (),
    twins: Twins | None = None,
    tracks: Sequence[Any] | None = None,
    most: int = holdout.MOST,
    seed: int = 0,
    title: str = "a latent action model",
    source: str = "D",
) -> Verdict:
    """Ask all ten questions of ``model`` on episodes that it has not seen, and say what came of them."""
    given = (tuple(siblings), twins, None if tracks is None else tuple(tracks))
    return verdict_of(Exam(model, episodes, learnt, *given, most, seed), title=title, source=source)


def verdict_of(exam: Exam, *, title: str = "a latent action model", source: str = "D") -> Verdict:
    """What came of an exam, for who wants to look at the exam afterwards, too."""
    began = time.perf_counter()
    holdout.refuse_overlap(exam.model, exam.episodes)
    checks = tuple(asked(exam))
    found = diagnosis(checks)
    sure = confidence(checks, found)
    name = found[0] if found else WORKING
    advice, command = ("", "")
    if found:
        remedy = REMEDIES[found[0]]
        advice, command = remedy.advice, remedy.command.format(data=source)
    return Verdict(
        name=name, checks=checks, ailments=found, confidence=sure, data=exam.told, advice=advice, command=command,
        seconds=time.perf_counter() - began, title=title,
        fingerprint={"held-out episodes": exam.episodes.fingerprint},
    )  # fmt: skip


def diagnosis(checks: Sequence[Check]) -> tuple[Ailment, ...]:
    """All ailments that failing checks name, in the order of ``REMEDIES``.

    That what is seen tells the action is an ailment only where few labels do not tell well what latents mean: a sound
    model may be asked about an expert's video, too.
    """
    if not any(check.outcome != "abstain" for check in checks if check.code != "C0"):
        return ("not enough data",)  # nothing could be asked
    failed = {check.code: check for check in checks if check.outcome == "fail"}
    named = {check.names for check in failed.values() if check.names}
    lead = next((check.value for check in checks if check.code == "C7"), None)
    if lead is not None and lead.value is not None and LIMITS["known"].kept(lead.value):
        named.discard("too deterministic")
    return tuple(ailment for ailment in REMEDIES if ailment in named)


def confidence(checks: Sequence[Check], found: Sequence[Ailment]) -> float:
    """How likely the verdict is with other episodes: of the surest check that names it, or of all that passed."""
    if found:
        return max((c.sure for c in checks if c.outcome == "fail" and c.names == found[0]), default=0.5)
    return min((c.sure for c in checks if c.outcome == "pass" and c.names), default=0.5)
