"""Units: stretches of actions that occur again and again, each made one symbol, as words are of letters."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from tacit.clip import Space
from tacit.part import Part

UNKNOWN, NOTHING = -1, -2  # a step whose action nobody recorded, and one that there is not: the episode is over
PAD = -3  # behind the last action of a unit
ROUNDS = 25  # of the search for centres


class Units(Part):
    """A vocabulary of action stretches, grown by merging neighbours (byte-pair encoding, Gage 1994; PRISE 2024).

    Choices are letters as they are; vectors first become the nearest of ``letters`` centres. ``learn`` grows the
    vocabulary to ``size`` units of at most ``longest`` actions; before that each letter is a unit and no more.
    """

    pieces: Tensor
    centres: Tensor

    def __init__(self, *, space: Space, size: int = 64, letters: int = 16, longest: int = 8) -> None:
        super().__init__()
        self.space, self.letters = space, space.size if space.discrete else letters
        if size < self.letters or longest < 1:
            raise ValueError(f"{size} units of at most {longest} actions cannot hold {self.letters} letters.")
        self.size, self.longest = size, longest
        pieces = torch.full((size, longest), PAD)
        pieces[: self.letters, 0] = torch.arange(self.letters)
        self.register_buffer("pieces", pieces)  # (size, longest) letters; a row of nothing but PAD is not in use
        self.register_buffer("centres", torch.zeros(self.letters, 0 if space.discrete else space.size))

    @property
    def lengths(self) -> Tensor:
        """How many actions each unit is, (size,); 0 where there is none."""
        return (self.pieces != PAD).sum(1)

    def spell(self, actions: Tensor) -> Tensor:
        """The letter of each action (...,) or (..., A), and UNKNOWN where nobody recorded one."""
        if self.space.discrete:
            return actions.long()
        known = self.space.labelled(actions)
        near = torch.cdist(actions.nan_to_num().flatten(0, -2).float(), self.centres).argmin(1)
        return torch.where(known, near.view(actions.shape[:-1]), UNKNOWN)

    def said(self, letters: Tensor) -> Tensor:
        """The action that each letter stands for."""
        return letters if self.space.discrete else self.centres[letters]

    def encode(self, actions: Tensor) -> Tensor:
        """The units of one episode's actions (T,) or (T, A), each the longest that fits where the last one ended."""
        letters = self.spell(actions)
        if (letters < 0).any():
            raise ValueError("Some of these actions nobody recorded; encode a stretch that is labelled throughout.")
        begun, _ = self.begin(ahead(letters[None], self.longest, over=torch.tensor([True])))
        units, at, lengths = [], 0, self.lengths.tolist()
        while at < len(letters):
            units.append(int(begun[0, at]))
            at += lengths[units[-1]]
        return torch.tensor(units, dtype=torch.int64)

    def decode(self, units: Tensor) -> Tensor:
        """The actions (T,) or (T, A) that units say one after the other."""
        letters = self.pieces[units]
        return self.said(letters[letters != PAD])

    def begin(self, letters: Tensor) -> tuple[Tensor, Tensor]:
        """Which unit begins where these (..., longest) letters follow, and whether that is certain.

        It is not where a longer unit might, for all that is known, begin there.
        """
        same = (letters[..., None, :] == self.pieces) | (self.pieces == PAD)
        maybe = same | (letters[..., None, :] == UNKNOWN)
        lengths = self.lengths
        fits, could = (torch.where(x.all(-1), lengths, 0) for x in (same, maybe))
        best = fits.max(-1)
        return best.indices, (best.values > 0) & (best.values == could.max(-1).values)

    @torch.no_grad()
    def learn(self, actions: Sequence[Tensor], contexts: Sequence[Tensor] | None = None, *, sure: float = 0.0) -> Units:
        """Find the letters and grow the vocabulary from stretches of recorded actions, most frequent pairs first.

        With ``contexts``, what was seen at each step as one of a few symbols, a pair is merged only where the second
        unit can be told from the first and from what was seen as the first began (a mean chance of ``sure``), and if
        the first tells more of it than what was seen does alone: their pointwise mutual information, given that.
        """
        if not self.space.discrete:
            self.centres.copy_(centred(torch.cat(list(actions)).float(), self.letters))
        words: list[list[Unit]] = [[(int(x),) for x in self.spell(stretch)] for stretch in actions]
        seen = [[0] * len(w) for w in words] if contexts is None else [c.tolist() for c in contexts]
        self.pieces[self.letters :] = PAD
        found: dict[Unit, None] = {}  # two ways of merging may come to the same unit
        while self.letters + len(found) < self.size:
            pair = _favoured(words, seen, sure=sure, longest=self.longest, known=contexts is not None)
            if pair is None:
                break
            found[pair[0] + pair[1]] = None
            words, seen = map(list, zip(*(_merged(w, c, pair) for w, c in zip(words, seen, strict=True)), strict=True))
        for number, unit in enumerate(found, self.letters):
            self.pieces[number, : len(unit)] = torch.tensor(unit)
        return self


Unit = tuple[int, ...]


def _favoured(
    words: list[list[Unit]], seen: list[list[int]], *, sure: float, longest: int, known: bool
) -> tuple[Unit, Unit] | None:
    """The most frequent pair of neighbours that may be merged; of equally frequent ones the smallest."""
    triples: Counter[tuple[Unit, Unit, int]] = Counter()
    for word, contexts in zip(words, seen, strict=True):
        triples.update(zip(word[:-1], word[1:], contexts[:-1], strict=True))
    first, second, places = Counter[tuple[Unit, int]](), Counter[tuple[Unit, int]](), Counter[int]()
    found: defaultdict[tuple[Unit, Unit], list[tuple[int, int]]] = defaultdict(list)
    for (a, b, c), count in triples.items():
        first[a, c] += count
        second[b, c] += count
        places[c] += count
        found[a, b].append((c, count))
    best: tuple[int, tuple[Unit, Unit]] | None = None
    for (a, b), rows in found.items():
        count = sum(n for _, n in rows)
        if count < 2 or len(a) + len(b) > longest:
            continue
        if known:
            chance = sum(n * n / first[a, c] for c, n in rows) / count
            gain = sum(n * math.log(n * places[c] / (first[a, c] * second[b, c])) for c, n in rows)
            if chance < sure or gain <= 0:
                continue
        if best is None or (count, _less(a, b)) > (best[0], _less(*best[1])):
            best = count, (a, b)
    return None if best is None else best[1]


def _less(a: Unit, b: Unit) -> tuple[int, ...]:
    return tuple(-x for x in a + b)


def _merged(word: list[Unit], seen: list[int], pair: tuple[Unit, Unit]) -> tuple[list[Unit], list[int]]:
    """A stretch with every such pair made one unit, from the left, and what was seen as each of its units began."""
    out, contexts, at = [], [], 0
    while at < len(word):
        both = at + 1 < len(word) and (word[at], word[at + 1]) == pair
        out.append(pair[0] + pair[1] if both else word[at])
        contexts.append(seen[at])
        at += 2 if both else 1
    return out, contexts


def ahead(letters: Tensor, longest: int, *, over: Tensor) -> Tensor:
    """The next ``longest`` letters from each step of (B, T), (B, T, longest); after the last all is unknown or over."""
    beyond = torch.where(over[:, None], NOTHING, UNKNOWN).expand(-1, longest - 1)
    return torch.cat([letters, beyond.to(letters)], 1).unfold(1, longest, 1)


def centred(points: Tensor, count: int) -> Tensor:
    """``count`` centres (count, A) of points (N, A): each the mean of those nearest (k-means, begun far apart)."""
    if len(points) < count:
        raise ValueError(f"{len(points)} labelled actions cannot have {count} centres; ask for fewer letters.")
    found = [points[(points - points.mean(0)).square().sum(1).argmin()]]
    while len(found) < count:  # the next is the farthest from all there are: repeatable, and no centre without points
        found.append(points[torch.cdist(points, torch.stack(found)).amin(1).argmax()])
    centres = torch.stack(found)
    for _ in range(ROUNDS):
        near = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, near, points)
        counts = torch.bincount(near, minlength=count)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres
