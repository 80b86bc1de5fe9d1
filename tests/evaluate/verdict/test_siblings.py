"""Other seeds are asked whether they found the same; what was built otherwise is no other seed."""

from __future__ import annotations

from tacit.data import toys
from tacit.envs.dots import Board
from tacit.evaluate.verdict import Check, checks
from tacit.evaluate.verdict.exam import Exam
from tacit.latents.model import LatentActions
from tacit.recipes.tacit import tacit
from tacit.train import Plan

DOTS = toys.dots(Board(size=16, goal=False, wrap=False), episodes=60, length=10, seed=0).episodes


def made(points: int, *, seed: int) -> LatentActions:
    plan = Plan(steps=1, batch=8, seed=seed, device="cpu")
    return tacit(DOTS.split(0.5)[0].unlabelled(), None, points=points, width=16, plan=plan)


def asked(points: int) -> Check:
    return checks.stable(Exam(made(4, seed=0), DOTS.split(0.5)[1], siblings=(made(points, seed=1),), most=256))


def test_a_sibling_that_was_built_otherwise_is_no_other_seed() -> None:
    alike, other = asked(4), asked(3)
    assert alike.outcome in ("pass", "fail") and not alike.note
    assert other.outcome == "abstain" and other.value is not None and "built alike" in other.note
