"""``LatentActions``: encoder, inverse, bottleneck and forward model; every method is a choice of these four."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, Episode, each, floats, pasts, stacked
from tacit.data.augment import jitter as lit
from tacit.data.augment import shift as shifted
from tacit.data.episodes import Episodes
from tacit.data.scale import Engine
from tacit.latents.keep import Work, kept, shown
from tacit.latents.signals import names
from tacit.latents.step import Step
from tacit.part import Part, printed
from tacit.parts.quantize import Bottled
from tacit.spread import average


class LatentActions(Part):
    """Finds the latent action ``z`` between two frames by asking what a forward model must be told to reach the second.

    ``past`` more frames are seen before the present one, each for itself; with ``stack`` the encoder sees every frame
    with those just before it as one picture of more channels. In training the goal lies up to ``reach`` steps ahead;
    the forward model predicts it, or, with ``ahead=False``, the very next frame (LAOM). With ``along``, of an inverse
    and a forward model that go through time causally, every transition of a clip is learnt from at once. ``shift``
    moves the inverse's pictures, all of a sample alike, by up to so many pixels, which the forward model's are not:
    then ``z`` cannot say where things are, only what changes; ``cyclic`` brings back on the other side what leaves the
    picture. ``jitter`` makes each sample's pictures, all alike and for both models, brighter or darker by up to that
    share. Of ``views`` cameras, whose pictures lie side by side, one leads another's picture on in training, and in use
    the first its own: ``z`` says nothing that only one of them sees.
    ``label`` is a head that reads true actions from ``z`` where they are known; ``signals`` are further costs;
    ``matched`` gives the labels the weight of their share of a batch, and the signals that of the rest (LAOF).
    ``language`` makes tokens of an episode's text for both models. ``of`` says what is looked at.
    """

    def __init__(
        self,
        *,
        inverse: Part,
        bottleneck: Part,
        forward: Part,
        encoder: Part | None = None,
        label: Part | None = None,
        language: Part | None = None,
        signals: Sequence[Part] = (),
        of: Literal["frames", "state"] = "frames",
        past: int = 0,
        stack: int = 1,
        reach: int = 1,
        ahead: bool = True,
        along: bool = False,
        shift: int = 0,
        cyclic: bool = False,
        jitter: float = 0.0,
        views: int = 1,
        weight: float = 1.0,
        matched: bool = False,
    ) -> None:
        super().__init__()
        if of not in ("frames", "state") or min(past, reach - 1, shift) < 0 or not (0 <= jitter <= 1 and weight >= 0):
            raise ValueError(
                f"Given {of=}, {past=}, {reach=}, {shift=}, {jitter=}, {weight=}; wanted of='frames' or 'state', a "
                "reach from 1, a jitter up to 1, nothing below 0. Clips of N frames have a past of up to N - 2."
            )
        if matched and label is None or not all(0 <= getattr(s, "weight", 0) < torch.inf for s in signals):
            raise ValueError(
                f"Given {matched=} with label={type(label).__name__}, and signals that weigh "
                f"{[getattr(s, 'weight', None) for s in signals]}; labels can be matched where there is a head for "
                "them (labelled above 0), and weights are from 0 on."
            )
        if along and reach > 1 or (shift or jitter) and of == "state":
            raise ValueError(
                f"Given {along=}, {reach=}, {shift=}, {jitter=}, {of=}; along has a reach of 1, and states have "
                "no shift and no jitter."
            )
        if views < 1 or views > 1 and (of == "state" or not ahead):
            raise ValueError(f"Given {views=}, {of=}, {ahead=}; several views are of pictures, and look ahead.")
        if stack < 1 or stack > 1 and (along or views > 1 or encoder is None or of == "state"):
            raise ValueError(
                f"Given {stack=}, {along=}, {views=}, {of=}; what is stacked is one view's pictures, for an encoder."
            )
        self.encoder, self.inverse, self.bottleneck = encoder, inverse, bottleneck
        self.onward, self.label, self.language = forward, label, language  # `forward` is torch's own name
        self.signals, self.names = nn.ModuleList(signals), names(signals)
        self.furthest = max([reach, *(getattr(signal, "ahead", 1) for signal in signals)])  # steps
        self.of, self.stack, self.reach, self.ahead, self.along = of, stack, reach, ahead, along
        self.past = past + stack - 1  # how many frames before the present one are needed, in either way
        self.shift, self.cyclic, self.jitter, self.views = shift, cyclic, jitter, views
        self.weight, self.matched = weight, matched
        self.dim: int = bottleneck.dim  # type: ignore[assignment]
        self.register_buffer("scale", torch.tensor(0.0))  # mean squared change between frames: the unit of the loss

    @property
    def length(self) -> int:
        """How many frames a training clip needs."""
        return self.past + 1 + self.furthest

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        if clip.time < self.length:
            raise ValueError(
                f"Clips have {clip.time} frames; this model trains on {self.length}: data.clips({self.length})."
            )
        if self.jitter and clip.frames is not None:
            clip = clip.replace(frames=lit(clip.frames, brightness=self.jitter, contrast=0.0))
        known = None
        if self.label is not None and clip.mask is not None and clip.actions is not None:
            clip, known = (clip, clip.mask.flatten(0, 1)) if self.along else self._at_labels(clip)
        step = self._window(clip) if self.along else self._pair(clip, known)
        told = {"pair": step.pair} if self.onward.heeds else {}
        miss = self.onward.cost(step.guess.float(), step.wanted, **told)  # type: ignore[operator]
        still = self.onward.cost(step.present, step.wanted, **told)  # type: ignore[operator]
        if self.training:
            self.scale.lerp_(average(still.detach()), 0.01 if self.scale > 0 else 1.0)
        cost = miss / self.scale.clamp(min=1e-6) + step.found.loss
        metrics = {"fvu": (miss / still.clamp(min=1e-6)).detach(), **step.found.metrics}
        share = average(known.float().mean()) if self.matched and known is not None else 0.0
        if known is not None:
            actions = clip.actions.flatten(0, 1) if self.along else clip.actions[:, self.past]  # type: ignore[union-attr,index]
            taught = self.label.cost(step.found.z, actions, known=known)  # type: ignore[operator,union-attr]
            weight = self.weight * (share if self.matched else 1.0)
            cost, metrics["label"] = cost + weight * taught, taught.detach()
        for name, signal in zip(self.names, self.signals, strict=True):
            extra = signal.cost(self, step)  # type: ignore[operator]
            cost, metrics[name] = cost + (1 - share) * signal.weight * extra, extra.detach()  # type: ignore[operator]
        return cost, metrics

    def _pair(self, clip: Clip, known: Tensor | None) -> Step:
        """One transition of each clip, over a random number of steps; a label teaches one step."""
        rows = torch.arange(len(clip), device=clip.device)
        steps = torch.randint(1, self.reach + 1, (len(clip),), device=clip.device)
        steps = steps if known is None else torch.where(known, 1, steps)
        raw = stacked(self.raw(clip), self.stack)
        pair = torch.cat([raw[:, self.stack - 1 : self.past + 1], raw[rows, self.past + steps][:, None]], 1)
        seen, features, viewed = self._both(pair)
        told = self._told(clip)
        found = self.bottleneck(self.inverse(viewed[:, :-1], viewed[:, -1], **told))
        goal = seen[:, -1] if self.ahead else self._values(raw[:, self.past + 1])
        wanted, present = self.onward.wanted(goal), self.onward.wanted(seen[:, -2])  # type: ignore[operator]
        told |= {"goal": wanted} if self.onward.denoises else {}
        guess = self.onward(seen[:, :-1], features[:, :-1], _whole(found), **told)
        ends = torch.stack([torch.full_like(steps, self.past), self.past + steps], 1)
        return Step(clip, ends, found, features, guess, wanted, present, torch.stack([seen[:, -2], goal], 1))

    def _window(self, clip: Clip) -> Step:
        """Every transition of each clip, each seen from no later than its goal."""
        seen, features, viewed = self._both(self.raw(clip))
        told, time = self._told(clip), clip.time
        found = self.bottleneck(self.inverse.along(viewed, **told).flatten(0, 1))  # type: ignore[operator]
        z = _whole(found).unflatten(0, (len(clip), time - 1))
        guess = self.onward.along(seen[:, :-1], features[:, :-1], z, **told)  # type: ignore[operator]
        every = each(self.onward.wanted, seen)  # type: ignore[arg-type]
        ends = torch.arange(time - 1, device=clip.device)[:, None] + torch.arange(2, device=clip.device)
        pair = torch.stack([seen[:, :-1], seen[:, 1:]], 2)
        rows = [x.flatten(0, 1) for x in (guess, every[:, 1:], every[:, :-1], pair)]
        return Step(clip, ends.repeat(len(clip), 1), found, features, *rows)

    def _at_labels(self, clip: Clip) -> tuple[Clip, Tensor]:
        """Clips begun where their first label lies, as far as they hold one, and which do: a label teaches one step."""
        assert clip.actions is not None and clip.mask is not None
        known = clip.mask[:, self.past :]
        late = known.int().argmax(1, keepdim=True)  # 0 where there is none
        rows, time = torch.arange(len(clip), device=clip.device)[:, None], torch.arange(clip.time, device=clip.device)
        frames, steps = (late + time).clamp(max=clip.time - 1), (late + time[:-1]).clamp(max=clip.time - 2)
        seen = {k: getattr(clip, k)[rows, frames] for k in ("frames", "state") if getattr(clip, k) is not None}
        moved = Clip(**seen, actions=clip.actions[rows, steps], mask=clip.mask[rows, steps], text=clip.text)
        return moved, known.any(1)

    def after_step(self) -> None:
        super().after_step()
        if self.encoder is not None:
            self.onward.follow(self.encoder)  # type: ignore[operator]

    @property
    def alone(self) -> bool:
        """Whether a transition is inferred and predicted as well alone, without those before it in its clip."""
        return not self.along

    def infer(self, clip: Clip) -> Tensor:
        """The latent of every transition, (B, T-1, D)."""
        return self.found(clip).z.unflatten(0, (len(clip), clip.time - 1))

    def latest(self, clip: Clip) -> Tensor:
        """The latent of a clip's last transition alone, (B, D): what ``infer`` says of it, for less."""
        return self.found(clip, 1).z if self.alone else self.infer(clip)[:, -1]

    def found(self, clip: Clip, count: int | None = None) -> Bottled:
        """What the bottleneck makes of every transition, row by row: (B * (T-1), ...).

        A model that takes each ``alone`` may be asked for the last ``count``.
        """
        count = self._counted(clip, count or clip.time - 1)
        clip = self._recent(clip, count)
        _, features = self._seen(clip)
        if not self.alone:
            return self.bottleneck(self._rolled(self.inverse, clip, features, size=self.past + 2).flatten(0, 1))
        goals, told = features[:, -count:].flatten(0, 1), self._told(clip, times=count)
        return self.bottleneck(self.inverse(self._pasts(features[:, :-1], count), goals, **told))

    def predict(self, clip: Clip, latents: Tensor) -> Tensor:
        """What each latent (B, K, D) makes of the frame it leaves from: comparable with ``targets``.

        They are those of a clip's last transitions: of all of them, or, of a model that takes each ``alone``, of fewer.
        """
        count = self._counted(clip, latents.shape[1])
        blank = getattr(self.bottleneck, "blank", None)  # what stands for what is only heard in training
        if blank is not None:
            latents = torch.cat([latents, blank.expand(*latents.shape[:2], -1)], -1)
        clip = self._recent(clip, count)
        frames, features = self._seen(clip.steps(0, clip.time - 1))  # the last is what is to be predicted
        if not self.alone:
            return self._rolled(self.onward, clip, frames, features, latents, size=self.past + 1).float()
        told = self._told(clip, times=count)
        seen = (self._pasts(x, count) for x in (frames, features))
        return self.onward(*seen, latents.flatten(0, 1), **told).float().unflatten(0, latents.shape[:2])

    def _counted(self, clip: Clip, count: int) -> int:
        if clip.time < 2:
            raise ValueError(f"Given a clip of {clip.time} frames; a latent lies between two: wanted 2 or more.")
        if count != clip.time - 1 and not (self.alone and 0 < count < clip.time):
            many = f"1 to {clip.time - 1}" if self.alone else f"{clip.time - 1}"
            raise ValueError(f"Given {count} latents in a clip of {clip.time} frames; wanted {many}.")
        return count

    def _recent(self, clip: Clip, count: int) -> Clip:
        """All that is looked at for the last ``count`` transitions of a clip."""
        return clip.steps(max(0, clip.time - count - self.past - 1), clip.time)

    def targets(self, clip: Clip) -> Tensor:
        """What ``predict`` should have said, (B, T-1, ...)."""
        return each(self.onward.wanted, self._shown(clip)[:, 1:])  # type: ignore[arg-type]

    def features(self, clip: Clip) -> Tensor:
        """What the encoder sees in each frame, flat: (B, T, F); without an encoder, a picture of eight by eight."""
        frames, features = self._seen(clip)
        if self.encoder is None and self.of == "frames":
            features = F.adaptive_avg_pool2d(frames.flatten(0, 1), 8).unflatten(0, frames.shape[:2])
        return features.flatten(2)

    def raw(self, clip: Clip) -> Tensor:
        """What is looked at as it was recorded, (B, T, ...)."""
        found = clip.state if self.of == "state" else clip.frames
        if found is None:
            raise ValueError(f"This model looks at {self.of}, and the clip has none; record or bring data that has.")
        if found.shape[-1] % self.views:
            raise ValueError(
                f"This model sees {self.views} views side by side, and the pictures are {found.shape[-1]} wide; "
                f"wanted a multiple of {self.views}."
            )
        return found

    def glimpse(self, episode: Episode, rows: slice | list[int]) -> Clip:
        """What this model looks at of some moments of an episode, as a batch of one."""
        seen = episode.state if self.of == "state" else episode.frames
        if seen is None:
            raise ValueError(f"An episode has no {self.of}, from which this model infers latent actions.")
        given = torch.from_numpy(np.array(seen[rows]))[None]
        text = None if episode.text is None else (episode.text,)
        clip = Clip(state=given, text=text) if self.of == "state" else Clip(frames=given.movedim(-1, 2), text=text)
        return clip.to(self.device)

    def _values(self, raw: Tensor) -> Tensor:
        return raw.float() if self.of == "state" else floats(raw)

    def _seen(self, clip: Clip) -> tuple[Tensor, Tensor]:
        frames = self._shown(clip)
        return frames, self._features(frames)

    def _shown(self, clip: Clip) -> Tensor:
        """Every moment of a clip as the encoder is shown it."""
        return self._values(stacked(self._first(self.raw(clip)), self.stack))

    def _both(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is looked at, its features, and those that the inverse model has: of moved pictures, of another view."""
        other = raw
        if self.views > 1:
            sides = raw.unflatten(-1, (self.views, -1)).movedim(-2, 1)
            rows = torch.arange(len(raw), device=raw.device)
            one = torch.randint(self.views, rows.shape, device=raw.device)
            two = (one + torch.randint(1, self.views, rows.shape, device=raw.device)) % self.views
            raw, other = sides[rows, one], sides[rows, two]
        seen = self._values(raw)
        features = self._features(seen)
        if other is raw and not self.shift:
            return seen, features, features
        other = shifted(other, self.shift, cyclic=self.cyclic) if self.shift else other
        return seen, features, self._features(self._values(other))

    def _first(self, raw: Tensor) -> Tensor:
        """What the first view shows, where there are several side by side."""
        return raw if self.views == 1 else raw.unflatten(-1, (self.views, -1))[..., 0, :]

    def _features(self, frames: Tensor) -> Tensor:
        if self.encoder is None:
            return frames
        return each(self.encoder, frames)

    def _told(self, clip: Clip, *, times: int = 1) -> dict[str, Tensor]:
        """What both models are told of each episode's text, as often as the clip has rows."""
        if self.language is None:
            return {}
        if clip.text is None:
            raise ValueError("This model was built with a language, and the clip has no text; bring data that has.")
        words = self.language(clip.text)
        words = words[0] if isinstance(words, tuple) else words  # tokens come with a mask, which all zeros say again
        return {"told": words.to(clip.device).repeat_interleave(times, 0)}

    def _pasts(self, x: Tensor, count: int) -> Tensor:
        """For each of the last ``count`` moments, it and those before it; before the first there is only the first."""
        return x[:, pasts(x.shape[1], self.past + 1 - self.stack, device=x.device)[-count:]].flatten(0, 1)

    def _rolled(self, part: Part, clip: Clip, *given: Tensor, size: int) -> Tensor:
        """What ``part`` says along the clip where it is never shown more than ``size`` moments: first few, then all."""
        early = part.along(*(x[:, :size] for x in given), **self._told(clip))  # type: ignore[operator]
        count = given[0].shape[1] - size
        if count <= 0:
            return early
        index = torch.arange(1, count + 1)[:, None] + torch.arange(size)
        windows = (x[:, index.to(x.device)].flatten(0, 1) for x in given)
        later = part.along(*windows, **self._told(clip, times=count))[:, -1]  # type: ignore[operator]
        return torch.cat([early, later.unflatten(0, (len(clip), count))], 1)


def _whole(found: Bottled) -> Tensor:
    """All that a forward model hears in training: the latent, and what the bottleneck tells besides."""
    return found.z if found.beside is None else torch.cat([found.z, found.beside], -1)


def label(
    model: LatentActions,
    data: Episodes,
    out: str | Path | None = None,
    *,
    batch: int = 64,
    workers: int = 1,
    engine: Engine = "local",
) -> Episodes:
    """``data`` carrying the latents (and codes) that ``model`` infers for every transition of every episode.

    With ``out`` they are also written there, with the recordings, as a dataset: killed, it goes on where it was; called
    again it is read and not inferred. More ``workers`` than one infer side by side, with one thread each.
    """
    work = Work(partial(infer, model, batch=batch), data, workers, engine)
    if out is not None:
        shape = f"{len(data)} episodes {data.spec.name}".strip()
        who = {"model": f"{type(model).__name__} {printed(model)}", "data": f"{shape} {data.fingerprint}"}
        return kept(work, out=Path(out), who=who)
    latents, codes = zip(*shown(work), strict=True)
    return data.with_latents(latents, None if codes[0] is None else codes)


def carries(model: LatentActions, data: Episodes) -> bool:
    """Whether the latents in ``data`` are this model's, by the first episode that moves: others' mean other things."""
    latents = data.column("latents")
    if latents is None or data.spec.latent != model.dim:
        return False
    number = int((data.lengths > 1).argmax())
    found, _ = infer(model, data, number=number)
    held = latents[data.starts[number] :][: len(found)]
    return bool(np.allclose(held, found, rtol=0.01, atol=0.01 * np.abs(found).max(initial=0.0)))


@torch.inference_mode()
def infer(
    model: LatentActions, data: Episodes, *, number: int, batch: int = 64
) -> tuple[np.ndarray, np.ndarray | None]:
    """The latents and codes of one episode; long ones in stretches that overlap by the past the model wants."""
    episode = data.episode(number)
    training, count = model.training, len(episode) - 1
    model.eval()
    latents, codes = [], []
    for start in range(0, max(count, 1), batch):
        first = max(0, start - model.past)
        rows = slice(first, start + batch + 1) if count else [0, 0]  # one moment: nothing, but so wide
        found = model.found(model.glimpse(episode, rows))
        latents.append(found.z[start - first :].float().cpu().numpy())
        if found.codes is not None:
            codes.append(found.codes[start - first :].cpu().numpy())
    model.train(training)
    return np.concatenate(latents)[:count], np.concatenate(codes)[:count] if codes else None
