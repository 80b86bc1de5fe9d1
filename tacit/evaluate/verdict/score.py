"""A score without labels, by which models of the same video are put in order: seeds, sizes, methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tacit.evaluate import holdout
from tacit.evaluate.report import Value
from tacit.evaluate.tally import explained
from tacit.evaluate.verdict.check import LIMITS
from tacit.evaluate.verdict.exam import KNOWING, Exam

PARTS = ("foreseen", "used", "told", "no copy", "nothing is nothing")


@dataclass(frozen=True)
class Score:
    """How good a model is for all that is known without a label, from 0 to 1, and what it is the product of."""

    value: float
    parts: dict[str, float]
    n: int
    data: str

    def values(self) -> list[Value]:
        told = {"score without labels": self.value, **self.parts}
        return [Value(name, part, n=self.n, data=self.data) for name, part in told.items()]


def score(exam: Exam) -> Score:
    """The product of what the checks without labels leave of a model.

    How much of the change it foresees; how much of that by its own latent; how much of what happens, beyond what is
    usual there, a line reads from the latent and from where things are: few labels go no further than a line. And two
    that are whole within the limits of their checks and fall beyond: how little of a frame the latent carries
    elsewhere, and how still what does not change is kept. A product, because one of them at nought leaves nothing to
    act with.
    """
    holdout.refuse_overlap(exam.model, exam.episodes)
    if not exam.encodes or not exam.predicts:
        raise ValueError("A score without labels asks how a model predicts with its latents: it wants both halves.")
    bare = Exam(exam.model, exam.episodes.unlabelled(), most=exam.most, seed=exam.seed)
    effects = bare.effects
    if isinstance(effects, str):
        raise ValueError(f"A score without labels cannot be given here: {effects}.")
    copied, moved = bare.share("carried", "painted", "carried").value, bare.share("rest", "change").value
    found = (
        1 - _number(bare.judged["FVU"]),
        _number(bare.judged["shuffled-latent gap"]),
        max(explained(bare.read(names, sides=effects)) for names in (("z",), *KNOWING)),
        _within(copied, LIMITS["copy"].at),
        _within(moved, LIMITS["null"].at),
    )
    parts = {name: float(np.clip(np.nan_to_num(part), 0, 1)) for name, part in zip(PARTS, found, strict=True)}
    return Score(float(np.prod(list(parts.values()))), parts, len(bare.path), exam.told)


def _number(value: Value) -> float:
    return float("nan") if value.value is None else value.value


def _within(share: float, limit: float) -> float:
    """1 up to the limit, and down to 0 at a share of 1."""
    return min(1.0, (1 - share) / (1 - limit))
