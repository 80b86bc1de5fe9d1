"""``Policy``: the contract of everything that acts, and the memory of the last few frames that most of them keep."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.clip import Clip
from tacit.part import Part

Memory = dict[str, Tensor]


class Policy(Part):
    """Acts on observations of shape (B, 1); all that it remembers is in the memory it returns."""

    past: int = 0  # how many frames before the present one it looks at
    hindsight: bool = False  # whether its lessons, never its actions, look at what came after: a forecast, a goal

    def start(self, batch: int) -> Memory | None:
        """The memory of an episode that has not begun."""
        return {"count": torch.zeros(batch, dtype=torch.int64)} if self.past else None

    def act(self, observation: Clip, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        """The actions of all ``B`` episodes, (B,) or (B, A), and the memory for the next call."""
        raise TypeError(f"{type(self).__name__} does not say how it acts.")


def recall(observation: Clip, memory: Memory | None, *, past: int) -> tuple[Tensor, Tensor, Memory | None]:
    """The last ``past + 1`` frames (B, past + 1, C, H, W), how many of the past are real (B,), and the next memory.

    Before the first frame there is only the first: it stands in for what was never seen, in training as here.
    """
    now = observation.frames
    assert now is not None
    count = torch.zeros(len(now), dtype=torch.int64, device=now.device)
    if not past:
        return now, count, None
    count = memory["count"].to(now.device) if memory else count
    before = memory.get("frames") if memory else None
    if before is None:
        before = now.expand(-1, past, -1, -1, -1)
    begun = (count > 0)[:, None, None, None, None]  # what a memory holds of an episode before this one is not looked at
    before = torch.where(begun, before.to(now.device), now)
    window = torch.cat([before, now], 1)
    return window, count, {"count": (count + 1).clamp(max=past), "frames": window[:, 1:]}
