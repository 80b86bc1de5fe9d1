"""The verdict: ten checks of any latent action model, what they come to, and what to try next."""

from tacit.evaluate.verdict.adapter import Pair, load
from tacit.evaluate.verdict.check import Check
from tacit.evaluate.verdict.verdict import Verdict, examine

__all__ = ["Check", "Pair", "Verdict", "examine", "load"]
