"""Acting in units: one decision stands for several actions, which are done before there is another."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Clip, Space, each, floats, pasts
from tacit.data.episodes import Episodes
from tacit.part import Part
from tacit.parts.outputs import Head
from tacit.parts.units import PAD, UNKNOWN, Units, ahead, centred
from tacit.policies.policy import Memory, Policy, recall

GLANCE, MANY = 4, 10_000  # side of the picture that tells sights apart, and frames that sights are found among
SURE = 0.5  # of its next action a merge must be, where nobody says


class Chunked(Policy):
    """Says which unit of actions comes next, and does what it says to its end without looking."""

    def __init__(self, *, encoder: Part, features: int, units: Units, past: int = 1, width: int = 256) -> None:
        super().__init__()
        self.encoder, self.units, self.past = copy.deepcopy(encoder).requires_grad_(), copy.deepcopy(units), past
        self.head = Head(features=features * (past + 1), space=Space("discrete", units.size), width=width)

    @property
    def length(self) -> int:
        """How many frames a training clip needs for the longest unit to be seen from a frame with a whole past."""
        return self.past + 1 + self.units.longest

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.frames is not None and clip.actions is not None and clip.mask is not None
        letters = torch.where(clip.mask, self.units.spell(clip.actions), UNKNOWN)
        over = torch.zeros(len(clip), dtype=torch.bool, device=clip.device) if clip.ends is None else clip.ends
        unit, certain = self.units.begin(ahead(letters, self.units.longest, over=over))
        seen = floats(clip.frames)[:, :-1]
        features = each(self.encoder, seen)
        index = pasts(clip.time - 1, self.past)
        said = features[:, index].flatten(0, 1).flatten(1)
        cost = self.head.cost(said, unit.flatten(), known=certain.flatten())
        return cost, {"miss": cost.detach(), "taught": certain.float().mean()}

    def start(self, batch: int) -> Memory:
        memory = {"left": torch.zeros(batch, dtype=torch.int64)}
        memory["said"] = torch.full((batch, self.units.longest), PAD)
        return memory | (super().start(batch) or {})

    def act(self, observation: Clip, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        memory = self.start(len(observation)) if memory is None else memory
        window, _, kept = recall(observation, memory, past=self.past)
        features = each(self.encoder, floats(window))
        left, said = memory["left"].to(window.device), memory["said"].to(window.device)
        scores = self.head(features.flatten(1)).masked_fill(self.units.lengths == 0, float("-inf"))
        unit = scores.argmax(-1)  # what is not in use cannot be said
        said = torch.where(left[:, None] > 0, said, self.units.pieces[unit])
        left = torch.where(left > 0, left, self.units.lengths[unit])
        letters = said[:, 0]
        said = torch.cat([said[:, 1:], torch.full_like(said[:, :1], PAD)], 1)
        return self.units.said(letters), {**(kept or {}), "left": left - 1, "said": said}


@torch.no_grad()
def vocabulary(units: Units, data: Episodes, *, sights: int = 0, sure: float | None = None) -> Units:
    """``units`` grown from the labelled stretches of ``data``; with ``sights``, told apart by that many kinds of view.

    What is seen is put into kinds by a picture of four by four pixels: coarse, but it needs no labels and no training.
    """
    if sure is not None and not sights:
        raise ValueError(
            f"sure={sure:g} was given without sights: how sure a merge is of its next action is asked within kinds of "
            "what is seen, and without them merges go by count alone. Give sights as well, such as 16, or leave sure "
            "out."
        )
    mask, actions, glances = data.mask, [], []
    for number, start in enumerate(data.starts):
        edges = np.flatnonzero(np.diff(np.r_[0, mask[start : start + data.lengths[number]], 0].astype(np.int8)))
        if not len(edges):
            continue
        episode = data.episode(number)
        assert episode.actions is not None and episode.frames is not None
        for first, last in edges.reshape(-1, 2):
            actions.append(torch.from_numpy(np.array(episode.actions[first:last])))
            if sights:
                seen = torch.from_numpy(np.array(episode.frames[first:last])).permute(0, 3, 1, 2)
                glances.append(F.adaptive_avg_pool2d(floats(seen), GLANCE).flatten(1))
    if not sights:
        return units.learn(actions)
    every = torch.cat(glances)
    kinds = centred(every[:: -(-len(every) // MANY)], sights)
    return units.learn(actions, [torch.cdist(g, kinds).argmin(1) for g in glances], sure=SURE if sure is None else sure)
