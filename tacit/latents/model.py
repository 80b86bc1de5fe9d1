"""``LatentActions``: encoder, inverse, bottleneck and forward model; every method is a choice of these four."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.clip import Clip, floats
from tacit.data.augment import shift as shifted
from tacit.data.episodes import Episodes
from tacit.data.scale import Engine
from tacit.latents.keep import Work, kept, shown
from tacit.part import Part, printed
from tacit.parts.quantize import Bottled
from tacit.spread import average


class LatentActions(Part):
    """Finds the latent action ``z`` between two frames by asking what a forward model must be told to reach the second.

    ``past`` more frames are seen before the present one. In training the goal lies up to ``reach`` steps ahead; the
    forward model predicts it, or, with ``ahead=False``, the very next frame (LAOM). ``shift`` moves the inverse's
    pictures, all of a sample alike, by up to so many pixels, which the forward model's are not: then ``z`` cannot say
    where things are, only what changes; ``cyclic`` brings back on the other side what leaves the picture. ``label`` is
    a head that reads true actions from ``z`` where they are known.
    """

    def __init__(
        self,
        *,
        inverse: Part,
        bottleneck: Part,
        forward: Part,
        encoder: Part | None = None,
        label: Part | None = None,
        past: int = 0,
        reach: int = 1,
        ahead: bool = True,
        shift: int = 0,
        cyclic: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.inverse, self.bottleneck = encoder, inverse, bottleneck
        self.onward, self.label = forward, label  # `forward` is torch's own name
        self.past, self.reach, self.ahead, self.weight = past, reach, ahead, weight
        self.shift, self.cyclic = shift, cyclic
        self.dim: int = bottleneck.dim  # type: ignore[assignment]
        self.register_buffer("scale", torch.tensor(0.0))  # mean squared change between frames: the unit of the loss

    @property
    def length(self) -> int:
        """How many frames a training clip needs."""
        return self.past + 1 + self.reach

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        if clip.time < self.length:
            raise ValueError(
                f"Clips have {clip.time} frames; this model trains on {self.length}: data.clips({self.length})."
            )
        rows = torch.arange(len(clip), device=clip.device)
        steps = torch.randint(1, self.reach + 1, (len(clip),), device=clip.device)
        known = None
        if self.label is not None and clip.mask is not None and clip.actions is not None:
            clip, known = self._at_labels(clip)
            steps = torch.where(known, 1, steps)
        raw = clip.frames
        pair = torch.cat([raw[:, : self.past + 1], raw[rows, self.past + steps][:, None]], 1)  # type: ignore[index]
        frames = floats(pair)
        features = self._features(frames)
        viewed = self._features(floats(shifted(pair, self.shift, cyclic=self.cyclic))) if self.shift else features
        found = self.bottleneck(self.inverse(viewed[:, :-1], viewed[:, -1]))
        goal = frames[:, -1] if self.ahead else floats(raw[:, self.past + 1])  # type: ignore[index]
        wanted, present = self.onward.wanted(goal), self.onward.wanted(frames[:, -2])  # type: ignore[operator]
        miss = F.mse_loss(self.onward(frames[:, :-1], features[:, :-1], found.z).float(), wanted)
        still = F.mse_loss(present, wanted)  # what saying "nothing happens" would cost
        if self.training:
            self.scale.lerp_(average(still.detach()), 0.01 if self.scale > 0 else 1.0)
        cost = miss / self.scale.clamp(min=1e-6) + found.loss
        metrics = {"fvu": (miss / still.clamp(min=1e-6)).detach(), **found.metrics}
        if known is not None:
            taught = self.label.cost(found.z, clip.actions[:, self.past], known=known)  # type: ignore[operator,union-attr,index]
            cost, metrics["label"] = cost + self.weight * taught, taught.detach()
        return cost, metrics

    def _at_labels(self, clip: Clip) -> tuple[Clip, Tensor]:
        """Clips begun where their first label lies, as far as they hold one, and which do: a label teaches one step."""
        assert clip.frames is not None and clip.actions is not None and clip.mask is not None
        known = clip.mask[:, self.past :]
        late = known.int().argmax(1, keepdim=True)  # 0 where there is none
        rows, time = torch.arange(len(clip), device=clip.device)[:, None], torch.arange(clip.time, device=clip.device)
        frames, steps = (late + time).clamp(max=clip.time - 1), (late + time[:-1]).clamp(max=clip.time - 2)
        moved = Clip(frames=clip.frames[rows, frames], actions=clip.actions[rows, steps], mask=clip.mask[rows, steps])
        return moved, known.any(1)

    def after_step(self) -> None:
        super().after_step()
        if self.encoder is not None:
            self.onward.follow(self.encoder)  # type: ignore[operator]

    def infer(self, clip: Clip) -> Tensor:
        """The latent of every transition, (B, T-1, D)."""
        return self.found(clip).z.unflatten(0, (len(clip), clip.time - 1))

    def found(self, clip: Clip) -> Bottled:
        """What the bottleneck makes of every transition, row by row: (B * (T-1), ...)."""
        _, features = self._seen(clip)
        return self.bottleneck(self.inverse(self._pasts(features), features[:, 1:].flatten(0, 1)))

    def predict(self, clip: Clip, latents: Tensor) -> Tensor:
        """What each latent (B, T-1, D) makes of the frame it leaves from: comparable with ``targets``."""
        frames, features = self._seen(clip)
        guess = self.onward(self._pasts(frames), self._pasts(features), latents.flatten(0, 1))
        return guess.float().unflatten(0, latents.shape[:2])

    def targets(self, clip: Clip) -> Tensor:
        """What ``predict`` should have said, (B, T-1, ...)."""
        after = floats(clip.frames)[:, 1:]  # type: ignore[arg-type]
        return self.onward.wanted(after.flatten(0, 1)).unflatten(0, after.shape[:2])  # type: ignore[operator]

    def features(self, clip: Clip) -> Tensor:
        """What the encoder sees in each frame, flat: (B, T, F); without an encoder, a picture of eight by eight."""
        frames, features = self._seen(clip)
        if self.encoder is None:
            features = F.adaptive_avg_pool2d(frames.flatten(0, 1), 8).unflatten(0, frames.shape[:2])
        return features.flatten(2)

    def _seen(self, clip: Clip) -> tuple[Tensor, Tensor]:
        frames = floats(clip.frames)  # type: ignore[arg-type]
        return frames, self._features(frames)

    def _features(self, frames: Tensor) -> Tensor:
        if self.encoder is None:
            return frames
        return self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _pasts(self, x: Tensor) -> Tensor:
        """For every frame but the last, it and the ``past`` before it; before the first there is only the first."""
        time = torch.arange(x.shape[1] - 1, device=x.device)
        index = (time[:, None] + torch.arange(-self.past, 1, device=x.device)).clamp(min=0)
        return x[:, index].flatten(0, 1)


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
    frames = data.episode(number).frames
    if frames is None:
        raise ValueError(f"Episode {number} has no frames; this model infers latent actions from pictures.")
    training, count = model.training, len(frames) - 1
    model.eval()
    latents, codes = [], []
    for start in range(0, max(count, 1), batch):
        first = max(0, start - model.past)
        piece = frames[first : start + batch + 1] if count else frames[[0, 0]]  # one frame: nothing, but so wide
        clip = Clip(frames=torch.from_numpy(np.array(piece))[None].permute(0, 1, 4, 2, 3))
        found = model.found(clip.to(model.device))
        latents.append(found.z[start - first :].float().cpu().numpy())
        if found.codes is not None:
            codes.append(found.codes[start - first :].cpu().numpy())
    model.train(training)
    return np.concatenate(latents)[:count], np.concatenate(codes)[:count] if codes else None
