"""Judging: numbers with intervals, on held-out episodes only, and the report that holds them.

Deeds live where they are done: ``latents.judge`` and ``latents.report``, ``probe.probe``, ``codes.codes``,
``rollout.rollout``.
"""

from tacit.evaluate.holdout import refuse_overlap
from tacit.evaluate.interval import Interval
from tacit.evaluate.page import Figure
from tacit.evaluate.report import Report, Value

__all__ = ["Figure", "Interval", "Report", "Value", "refuse_overlap"]
