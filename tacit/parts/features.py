"""``Frozen``: what a public vision model sees in a picture, as an encoder or a target that never learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.parts.pretrained import Borrowed, loaded, located, needed, told

KINDS = {  # what config.json calls it: the class of transformers that reads it
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "dinov3_convnext": "DINOv3ConvNextModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "vjepa2": "VJEPA2Model",
}
SMOOTH = {2: "bilinear", 3: "bicubic"}  # as processor files number them
PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Looks:
    """How a model wants its pictures: resized, cut to ``size`` about the middle, and scaled."""

    size: tuple[int, int]
    short: int | None  # what the shorter side becomes before the cut; without it the whole picture becomes ``size``
    smooth: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def resized(self, pictures: Tensor) -> Tensor:
        """Pictures (N, C, H, W) in [0, 1] at the model's size; smoothed as they shrink, never past black or white."""
        (height, across), (tall, wide) = pictures.shape[-2:], self.size
        if self.short is not None:
            least = min(height, across)
            tall, wide = (int(self.short * side / least) for side in (height, across))
        if (tall, wide) != (height, across):
            pictures = F.interpolate(pictures, (tall, wide), mode=self.smooth, antialias=True).clamp(0, 1)
        top, left = (tall - self.size[0]) // 2, (wide - self.size[1]) // 2
        return pictures[..., top : top + self.size[0], left : left + self.size[1]]


class Frozen(Borrowed):
    """Pictures (N, 3, H, W) as a public model sees them: DINOv2, DINOv3, SigLIP or V-JEPA 2, from a folder or by name.

    ``layer`` counts the blocks as a list does; the last is given after the model's own norm, an inner one as it is.
    ``pool`` gives the patches (N, tokens, dim), their mean (N, dim), or the model's own summary ("cls", (N, dim)).
    Without ``size`` pictures are prepared as the model's processor file says, which may cut off the border; with it the
    whole picture becomes so large. V-JEPA 2 also takes clips (N, T, 3, H, W), and gives ``tokens`` for every ``span``
    frames; a single picture stands still for it.
    """

    def __init__(
        self,
        source: str,
        *,
        layer: int = -1,
        pool: Literal["tokens", "mean", "cls"] = "tokens",
        size: int | Sequence[int] | None = None,
    ) -> None:
        transformers, folder = needed("Frozen"), located(source)
        wiring = told(folder, "config.json")
        kind = wiring.get("model_type")
        if kind not in KINDS:
            raise ValueError(f"{source!r} is a {kind!r} model; Frozen knows {', '.join(KINDS)}.")
        processor, changes = _looks(folder, size), {}
        if kind == "vjepa2":  # it counts its rows from this number
            if processor.size[0] != processor.size[1]:
                raise ValueError(f"V-JEPA 2 sees squares; {processor.size} is none. Give one number as size.")
            changes = {"crop_size": processor.size[0]}
        model: Any = loaded(getattr(transformers, KINDS[kind]), folder, **changes)
        if kind == "vjepa2":
            model.predictor = torch.nn.Identity()  # a half of the weights, and never asked
        self.kind, self.looks, self.pool = kind, processor, pool
        self.span = model.config.tubelet_size if kind == "vjepa2" else 1
        self._measure(model.config, layer, exact=size is None)
        self.hold(model, folder=folder, about=repr(processor))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(processor, name)).view(-1, 1, 1), persistent=False)

    def _measure(self, about: Any, layer: int, *, exact: bool) -> None:
        """What comes out, before anything goes in; ``exact`` where the model's own processor chose the size."""
        stages = getattr(about, "hidden_sizes", None) if self.kind == "dinov3_convnext" else None
        depth = len(stages) if stages else about.num_hidden_layers
        if not -depth <= layer < depth:
            raise ValueError(f"layer is {layer}; this model has {depth}: 0 to {depth - 1}, or -1 for the last.")
        self.layer, self.last = layer % depth, layer % depth == depth - 1
        self.dim: int = stages[self.layer] if stages else about.hidden_size
        # ConvNeXt halves at every stage, after a first step of four
        patch = 4 * 2**self.layer if stages else about.patch_size
        wrong = [side for side in self.looks.size if side < patch or (side % patch and not exact)]
        if wrong:
            near = max(patch, round(wrong[0] / patch) * patch)
            raise ValueError(f"size is {self.looks.size}; this model's patches are {patch} wide: take {near}, say.")
        self.grid = self.looks.size[0] // patch, self.looks.size[1] // patch
        self.tokens = self.grid[0] * self.grid[1]
        registers = getattr(about, "num_register_tokens", 0) or 0
        own = {"siglip": 0, "siglip_vision_model": 0, "vjepa2": 0, "dinov3_convnext": int(self.last)}
        self.ahead: int = own.get(self.kind, 1 + registers)  # tokens before the patches: the summary, and registers
        head = self.kind.startswith("siglip") and self.last and getattr(about, "vision_use_head", True)
        if self.pool not in ("tokens", "mean", "cls"):
            raise ValueError(f"pool is {self.pool!r}; it must be 'tokens', 'mean' or 'cls'.")
        if self.pool == "cls" and not self.ahead and not head:
            raise ValueError(f"A {self.kind} model has no summary of its own at layer {layer}; take pool='mean'.")

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]  # (N, 3, H, W) -> (N, tokens, dim) or (N, dim)
        if not frames.is_floating_point() or frames.ndim not in (4, 5) or frames.shape[-3] != 3:
            raise ValueError(
                f"Pictures are {frames.dtype} {tuple(frames.shape)}; wanted floats (N, 3, H, W) in [-0.5, 0.5], as "
                "tacit.clip.floats gives them."
            )
        clip = frames.ndim == 5
        if clip and (self.span == 1 or frames.shape[1] % self.span):
            wanted = f"a multiple of {self.span} frames" if self.span > 1 else "pictures (N, 3, H, W)"
            raise ValueError(f"A clip {tuple(frames.shape)} was given; a {self.kind} model wants {wanted}.")
        pictures = self.looks.resized((frames.flatten(0, 1) if clip else frames) + 0.5)
        pictures = ((pictures - self.mean) / self.std).type_as(self.mean)
        pictures = pictures.unflatten(0, frames.shape[:2]) if clip else pictures
        return self._pooled(self._seen(pictures))

    def _seen(self, pictures: Tensor) -> Any:
        wants: dict[str, Any] = {"output_hidden_states": not self.last}
        if self.kind == "vjepa2":
            video = pictures if pictures.ndim == 5 else pictures[:, None].expand(-1, self.span, -1, -1, -1)
            return self.held[0](video, skip_predictor=True, **wants)
        if self.kind.startswith("siglip"):
            wants["interpolate_pos_encoding"] = True  # nothing, where the size is its own
        return self.held[0](pictures, **wants)

    def _pooled(self, out: Any) -> Tensor:
        found: Tensor = out.last_hidden_state if self.last else out.hidden_states[self.layer + 1]
        if found.ndim == 4:  # an inner stage of ConvNeXt
            found = found.flatten(2).transpose(1, 2)
        if self.pool == "cls":
            return found[:, 0] if self.ahead else out.pooler_output
        found = found[:, self.ahead :]
        return found.mean(1) if self.pool == "mean" else found


def _looks(folder: Path, size: int | Sequence[int] | None) -> Looks:
    """What the model's processor file asks for; a ``size`` of the caller's takes the place of its resize and cut."""
    said = told(folder, *PROCESSORS)
    said = said.get("video_processor") or said.get("image_processor") or said
    lacking = [name for name in ("image_mean", "image_std", "size", "resample") if said.get(name) is None]
    unused = [name for name in ("do_resize", "do_rescale", "do_normalize") if said.get(name) is False]
    if lacking or unused or said["resample"] not in SMOOTH:
        fault = (
            f"says no {lacking[0]}" if lacking else f"has {unused[0]} off" if unused else "asks for another resample"
        )
        raise ValueError(f"The processor file in {folder} {fault}; Frozen resizes (2 or 3), rescales and normalises.")
    smooth, mean, std = SMOOTH[said["resample"]], tuple(said["image_mean"]), tuple(said["image_std"])
    if size is not None:
        return Looks((size, size) if isinstance(size, int) else (size[0], size[1]), None, smooth, mean, std)
    edges, cut = said["size"], said.get("crop_size") if said.get("do_center_crop") else None
    cut = {"height": cut, "width": cut} if isinstance(cut, int) else cut
    if "height" in edges:
        final = edges["height"], edges["width"]
        if cut and (cut["height"], cut["width"]) != final:
            raise ValueError(
                f"The processor file in {folder} resizes to {final} and then cuts; give a size of your own."
            )
        return Looks(final, None, smooth, mean, std)
    if not cut or edges.get("shortest_edge", 0) < max(cut["height"], cut["width"]):
        raise ValueError(f"The processor file in {folder} asks for {edges} and cuts to {cut}; give a size of your own.")
    return Looks((cut["height"], cut["width"]), edges["shortest_edge"], smooth, mean, std)
