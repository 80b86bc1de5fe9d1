"""A frozen model sees what transformers sees with the model's own processor, never learns, and is saved by its name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tacit.check import check_part
from tacit.part import Part
from tacit.parts import pretrained
from tacit.parts.features import Frozen
from tacit.parts.slow import Slow

transformers = pytest.importorskip("transformers")

BLOCKS = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HALF = [0.5, 0.5, 0.5]
DONE = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}


def cut(short: int, size: int) -> dict[str, Any]:
    """A processor that makes the shorter side ``short`` and cuts the middle out."""
    sides = {"height": size, "width": size}
    return {**DONE, "size": {"shortest_edge": short}, "do_center_crop": True, "crop_size": sides}


def square(size: int) -> dict[str, Any]:
    return {**DONE, "size": {"height": size, "width": size}}


def dinov2() -> Any:
    return transformers.Dinov2Model(transformers.Dinov2Config(**BLOCKS, image_size=56, patch_size=14))


def registers() -> Any:
    about = transformers.Dinov2WithRegistersConfig(**BLOCKS, image_size=28, patch_size=14, num_register_tokens=3)
    return transformers.Dinov2WithRegistersModel(about)


def dinov3() -> Any:
    about = transformers.DINOv3ViTConfig(**BLOCKS, intermediate_size=48, patch_size=16, num_register_tokens=4)
    return transformers.DINOv3ViTModel(about)


def convnext() -> Any:
    about = transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    return transformers.DINOv3ConvNextModel(about)


def siglip() -> Any:
    """The whole of it, as it is published: the tower that reads text comes along."""
    vision = {**BLOCKS, "intermediate_size": 32, "image_size": 32, "patch_size": 16}
    text = {**BLOCKS, "intermediate_size": 32, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))


def vjepa2() -> Any:
    ahead = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    about = transformers.VJEPA2Config(**BLOCKS, **ahead, crop_size=32, patch_size=16, frames_per_clip=4)
    return transformers.VJEPA2Model(about)


IMAGENET, EVEN = {"image_mean": MEAN, "image_std": STD}, {"image_mean": HALF, "image_std": HALF}
BIT = {**cut(32, 28), **IMAGENET, "resample": 3, "image_processor_type": "BitImageProcessor"}
WHOLE = {**IMAGENET, "resample": 2, "do_center_crop": None, "crop_size": None}
SIGLIP = {**square(32), **EVEN, "resample": 3, "image_processor_type": "SiglipImageProcessor"}
# each as its authors publish it: the model, the name of the processor file, and what that says
PUBLISHED: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "dinov2": (dinov2, "preprocessor", BIT),
    "registers": (registers, "preprocessor", BIT),
    "dinov3": (dinov3, "preprocessor", {**square(48), **WHOLE}),
    "convnext": (convnext, "preprocessor", {**square(64), **WHOLE}),
    "siglip": (siglip, "preprocessor", SIGLIP),
    "vjepa2": (vjepa2, "video_preprocessor", {**cut(36, 32), **IMAGENET, "resample": 2}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind, with weights that are random and not near zero, where all would look alike."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    for name, (build, file, told) in PUBLISHED.items():
        model = build()
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.2) if weight.ndim > 1 else weight.data.add_(torch.randn_like(weight) / 5)
        model.save_pretrained(root / name)
        (root / name / f"{file}_config.json").write_text(json.dumps(told))
    return {name: root / name for name in PUBLISHED}


def pictures(*, count: int = 2, frame: tuple[int, int] = (40, 56)) -> Tensor:
    """Smooth, in bytes: (N, 3, H, W)."""
    rough = torch.rand(count, 3, 5, 7)
    return nn.functional.interpolate(rough, frame, mode="bilinear").mul(255).round().byte()


def floats(frames: Tensor) -> Tensor:
    return frames / 255 - 0.5


def processed(folder: Path, frames: Tensor) -> Tensor:
    """The pictures as the model's own processor prepares them; by PIL on single floats where that wants torchvision."""
    told = json.loads(next(folder.glob("*processor_config.json")).read_text())
    if "image_processor_type" in told:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        return processor([np.asarray(f) for f in frames.permute(0, 2, 3, 1)], return_tensors="pt")["pixel_values"]
    short, size = told["size"].get("shortest_edge"), (told.get("crop_size") or told["size"])["height"]
    out = np.empty((len(frames), 3, size, size), np.float32)
    for n, c in np.ndindex(out.shape[:2]):
        one = Image.fromarray(frames[n, c].numpy().astype(np.float32) / 255, mode="F")
        wide = [int(short * side / min(one.size)) for side in one.size] if short else [size, size]
        plane = np.asarray(one.resize((wide[0], wide[1]), Image.Resampling.BILINEAR))
        top, left = ((side - size) // 2 for side in plane.shape)
        out[n, c] = (plane[top : top + size, left : left + size] - MEAN[c]) / STD[c]
    return torch.from_numpy(out)


@torch.no_grad()
def theirs(folder: Path, frames: Tensor, **wants: Any) -> Any:
    """What transformers' own class answers to its own processor's pictures."""
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    model = getattr(model, "vision_model", model)
    prepared = processed(folder, frames)
    if "vjepa" in type(model).__name__.lower():
        return model(torch.stack([prepared, prepared], 1), skip_predictor=True, **wants)
    return model(prepared, **wants)


AHEAD = {"dinov2": 1, "registers": 4, "dinov3": 5, "convnext": 1, "siglip": 0, "vjepa2": 0}
NATIVE = {"dinov2": 32, "registers": 32, "dinov3": 48, "convnext": 64, "siglip": 32, "vjepa2": 36}  # nothing to resize


@pytest.mark.parametrize("name", PUBLISHED)
def test_sees_what_transformers_sees(name: str, folders: dict[str, Path]) -> None:
    frames = pictures(frame=(NATIVE[name],) * 2)
    eyes, wanted = Frozen(str(folders[name])), theirs(folders[name], frames)
    patches = wanted.last_hidden_state[:, AHEAD[name] :]
    found = eyes(floats(frames))
    assert found.shape == (2, eyes.tokens, eyes.dim) and eyes.tokens == eyes.grid[0] * eyes.grid[1]
    torch.testing.assert_close(found, patches, rtol=1e-4, atol=1e-4)
    assert (found - patches.flip(0)).abs().mean() > 0.01, "another picture looks otherwise"
    mean = Frozen(str(folders[name]), pool="mean")(floats(frames))
    torch.testing.assert_close(mean, patches.mean(1), rtol=1e-4, atol=1e-4)
    if name != "vjepa2":
        summary = Frozen(str(folders[name]), pool="cls")(floats(frames))
        torch.testing.assert_close(summary, wanted.pooler_output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frame", [(24, 24), (40, 56), (70, 52), (96, 160)])
@pytest.mark.parametrize("name", PUBLISHED)
def test_prepares_pictures_of_any_size_as_the_model_s_processor(
    name: str, frame: tuple[int, int], folders: dict[str, Path]
) -> None:
    eyes, frames = Frozen(str(folders[name])), pictures(frame=frame)
    given: list[Tensor] = []
    eyes.held[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    eyes(floats(frames))
    ours = given[0][:, 0] if name == "vjepa2" else given[0]
    wanted = processed(folders[name], frames)
    assert ours.shape == wanted.shape
    # theirs rounds to bytes along the way, some of it twice, where ours keeps the fractions
    assert ((ours - wanted) * eyes.std).abs().max() < 1.6 / 255
    assert ((ours - wanted) * eyes.std).abs().mean() < 0.5 / 255


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_inner_layer_is_that_block_s_output(name: str, folders: dict[str, Path]) -> None:
    frames = pictures(frame=(NATIVE[name],) * 2)
    inner = theirs(folders[name], frames, output_hidden_states=True).hidden_states[2]
    wanted = inner.flatten(2).transpose(1, 2) if inner.ndim == 4 else inner[:, AHEAD[name] :]
    depth = 4 if name == "convnext" else 3
    for layer in (1, 1 - depth):
        eyes = Frozen(str(folders[name]), layer=layer)
        found = eyes(floats(frames))
        assert found.shape == (2, eyes.tokens, eyes.dim)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_size_of_one_s_own_shows_the_whole_picture(name: str, folders: dict[str, Path]) -> None:
    side = 56 if name in ("dinov2", "registers") else 64
    eyes, own = Frozen(str(folders[name]), size=side), Frozen(str(folders[name]))
    frames = floats(pictures(frame=(64, 64)))
    edge = frames.clone()
    edge[:, :, 0] = 0.5
    assert eyes.grid == (side // (32 if name == "convnext" else 14 if side == 56 else 16),) * 2
    assert eyes(frames).shape == (2, eyes.tokens, eyes.dim) and not torch.equal(eyes(frames), eyes(edge))
    if own.looks.short is not None:  # what the model's own processor cuts off
        assert torch.equal(own(frames), own(edge))


def test_places_are_told_apart_at_any_size(folders: dict[str, Path]) -> None:
    """V-JEPA 2 numbers its patches by a setting: at another size the same patch elsewhere must answer otherwise."""
    eyes = Frozen(str(folders["vjepa2"]), size=64)
    frames = torch.zeros(1, 3, 64, 64)
    frames[:, :, 16:32, 16:32] = 0.5
    seen, moved = eyes(frames)[0].unflatten(0, (4, 4)), eyes(frames.roll((16, 32), (2, 3)))[0].unflatten(0, (4, 4))
    still = eyes(torch.zeros(1, 3, 64, 64))[0].unflatten(0, (4, 4))
    changes = [(each - still).norm(dim=-1).flatten().argmax().item() for each in (seen, moved)]
    assert changes == [5, 11]


def test_a_clip_is_seen_in_time(folders: dict[str, Path]) -> None:
    eyes = Frozen(str(folders["vjepa2"]))
    clips = floats(pictures(count=8, frame=(36, 36))).unflatten(0, (2, 4))
    model = transformers.AutoModel.from_pretrained(folders["vjepa2"], local_files_only=True).eval()
    prepared = processed(folders["vjepa2"], ((clips + 0.5) * 255).round().byte().flatten(0, 1)).unflatten(0, (2, 4))
    with torch.no_grad():
        wanted = model(prepared, skip_predictor=True).last_hidden_state
    found = eyes(clips)
    assert eyes.span == 2 and found.shape == (2, 2 * eyes.tokens, eyes.dim)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (eyes(clips.flip(1)) - found).abs().max() > 0.1
    with pytest.raises(ValueError, match="multiple of 2 frames"):
        eyes(clips[:, :3])
    with pytest.raises(ValueError, match=r"wants pictures \(N, 3, H, W\)"):
        Frozen(str(folders["dinov2"]))(clips)


class Owner(Part):
    """A model with frozen eyes and a layer that learns."""

    def __init__(self, eyes: Frozen) -> None:
        super().__init__()
        self.eyes, self.net = eyes, nn.Linear(eyes.dim, 1)

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(self.eyes(frames))


def test_never_learns_and_never_leaves_evaluation(folders: dict[str, Path]) -> None:
    owner = Owner(Frozen(str(folders["dinov2"]), pool="mean")).train()
    frames = floats(pictures()).requires_grad_()
    before = owner.eyes(frames)
    assert not before.requires_grad and not any(m.training for m in owner.eyes.held[0].modules())
    assert {n for n, _ in owner.named_parameters()} == {"net.weight", "net.bias"}
    optimiser = torch.optim.SGD(owner.parameters(), 0.1)
    for _ in range(2):
        owner(frames).square().sum().backward()
        optimiser.step()
        owner.after_step()
    assert torch.equal(owner.eyes(frames), before) and owner.net.weight.grad is not None
    assert not any(p.requires_grad or p.grad is not None for p in owner.eyes.held[0].parameters())


@pytest.mark.parametrize("name", ["dinov2", "vjepa2"])
def test_moves_and_changes_layout_with_its_owner(name: str, folders: dict[str, Path]) -> None:
    owner = Owner(Frozen(str(folders[name])))
    frames = floats(pictures())
    before = owner(frames)
    owner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(owner(frames), before)
    owner.double()
    assert {p.dtype for p in owner.eyes.held[0].parameters()} == {torch.float64}
    torch.testing.assert_close(owner(frames.double()).float(), before, rtol=1e-4, atol=1e-4)
    assert {p.device.type for p in owner.to("meta").eyes.held[0].parameters()} == {"meta"}


def test_keeps_what_a_part_promises(folders: dict[str, Path]) -> None:
    check_part(Frozen(str(folders["dinov3"]), size=32), inputs=(floats(pictures()),))
    check_part(Owner(Frozen(str(folders["siglip"]))), inputs=(floats(pictures()),))
    slow = Slow(Owner(Frozen(str(folders["dinov2"]))))
    slow.follow(Owner(Frozen(str(folders["dinov2"]))))


def test_is_saved_without_its_weights_and_loaded_with_them(folders: dict[str, Path], tmp_path: Path) -> None:
    owner = Owner(Frozen(str(folders["dinov2"]), layer=1, pool="cls", size=(28, 42)))
    owner.save(tmp_path / "saved")
    size = (tmp_path / "saved" / "model.safetensors").stat().st_size
    assert size < 1000 < (folders["dinov2"] / "model.safetensors").stat().st_size
    loaded = Owner.load(tmp_path / "saved", classes=[Owner])
    frames = floats(pictures())
    assert torch.equal(loaded(frames), owner(frames)) and loaded.eyes.grid == (2, 3)


@pytest.mark.parametrize("what", ["weights", "wiring", "processor"])
def test_another_model_in_its_place_is_refused(what: str, folders: dict[str, Path], tmp_path: Path) -> None:
    there = shutil.copytree(folders["dinov2"], tmp_path / "eyes")
    Owner(Frozen(str(there))).save(tmp_path / "saved")
    Owner.load(tmp_path / "saved", classes=[Owner])
    if what == "weights":
        torch.manual_seed(1)
        dinov2().save_pretrained(there)
    elif what == "wiring":
        told = json.loads((there / "config.json").read_text())
        (there / "config.json").write_text(json.dumps({**told, "num_attention_heads": 4}))
    else:
        told = json.loads((there / "preprocessor_config.json").read_text())
        (there / "preprocessor_config.json").write_text(json.dumps({**told, "image_mean": HALF}))
    with pytest.raises(ValueError, match="holds [0-9a-f]{8}, and [0-9a-f]{8} when this was saved"):
        Owner.load(tmp_path / "saved", classes=[Owner])
    shutil.rmtree(there)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        Owner.load(tmp_path / "saved", classes=[Owner])


def test_who_wrote_the_config_is_no_other_model(folders: dict[str, Path], tmp_path: Path) -> None:
    there = shutil.copytree(folders["dinov2"], tmp_path / "eyes")
    Owner(Frozen(str(there))).save(tmp_path / "saved")
    told = json.loads((there / "config.json").read_text())
    (there / "config.json").write_text(json.dumps({**told, "transformers_version": "4.56.0"}, indent=1))
    Owner.load(tmp_path / "saved", classes=[Owner])


def test_half_a_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    there = shutil.copytree(folders["dinov2"], tmp_path / "eyes")
    weights = load_file(there / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, there / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks .* weights of a Dinov2Model .*would be random"):
        Frozen(str(there))
    (there / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 not tensors")
    with pytest.raises(ValueError, match="cannot be read as a Dinov2Model"):
        Frozen(str(there))
    (there / "model.safetensors").rename(there / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin, a pickle"):
        Frozen(str(there))


def test_what_cannot_be_used_is_refused_with_the_reason(folders: dict[str, Path], tmp_path: Path) -> None:
    there = shutil.copytree(folders["dinov2"], tmp_path / "eyes")
    told = json.loads((there / "config.json").read_text())
    (there / "config.json").write_text(json.dumps({**told, "model_type": "resnet"}))
    with pytest.raises(ValueError, match="is a 'resnet' model; Frozen knows dinov2"):
        Frozen(str(there))
    shutil.copy(folders["dinov2"] / "config.json", there)
    (there / "preprocessor_config.json").write_text(json.dumps({**DONE, "size": {"height": 28, "width": 28}}))
    with pytest.raises(ValueError, match="says no image_mean"):
        Frozen(str(there))
    (there / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no video_preprocessor_config.json or preprocessor_config"):
        Frozen(str(there))
    eyes = str(folders["dinov2"])
    for wrong, match in [
        ({"layer": 3}, "this model has 3: 0 to 2"),
        ({"size": 50}, r"patches are 14 wide: take 56"),
        ({"pool": "max"}, "'tokens', 'mean' or 'cls'"),
    ]:
        with pytest.raises(ValueError, match=match):
            Frozen(eyes, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no summary of its own"):
        Frozen(str(folders["vjepa2"]), pool="cls")
    with pytest.raises(ValueError, match="sees squares"):
        Frozen(str(folders["vjepa2"]), size=(32, 64))
    for frames in (pictures(), torch.zeros(2, 1, 32, 32)):
        with pytest.raises(ValueError, match=r"wanted floats \(N, 3, H, W\) in \[-0.5, 0.5\]"):
            Frozen(eyes)(frames)


def test_a_name_that_nobody_fetched_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"nor in the cache.*hf download acme/dinov2-none"):
        Frozen("acme/dinov2-none")
    for name in ("dinov2", "./nowhere", "a/b/c", "/nowhere/at/all"):
        with pytest.raises(FileNotFoundError, match="is no folder; give one with config.json"):
            Frozen(name)


def test_a_name_is_found_in_the_cache(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laid out as the hub's own client does, and nobody is asked."""
    home = tmp_path / "models--acme--eyes"
    shutil.copytree(folders["dinov2"], home / "snapshots" / ("a" * 40))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert pretrained.located("acme/eyes").parent.parent == home


def test_without_the_extra_the_error_names_it() -> None:
    code = "import sys; sys.modules['transformers'] = None\nfrom tacit.parts.features import Frozen\nFrozen('x')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ImportError: Frozen takes the package transformers: pip install "tacit[features]".' in ran.stderr
