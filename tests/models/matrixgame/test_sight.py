"""What is seen of a picture is what CLIP of the published layout says of it, from every layout of the files."""

from __future__ import annotations

import builtins
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldsim.errors import MissingDependency, ShapeError, WeightsError
from worldsim.models.matrixgame.sight import HEAD_DIM, INSIDE, MEAN, OUTSIDE, STD, Sight, load_sight, sight_name

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
WIDTH, INNER, LAYERS, PATCH, GRID = 2 * HEAD_DIM, 56, 3, 5, 3
ORIGINAL = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
State = dict[str, Tensor]


def original(seed: int, layers: int = LAYERS) -> State:
    """The visual half of a tiny CLIP by its original names, every weight random, norms too."""
    shapes: dict[str, tuple[int, ...]] = {
        "visual.cls_embedding": (1, 1, WIDTH),
        "visual.pos_embedding": (1, GRID * GRID + 1, WIDTH),
        "visual.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "visual.head": (WIDTH, 24),
    }
    norms = [f"transformer.{at}.{norm}" for at in range(layers) for norm in ("norm1", "norm2")]
    for norm in ("pre_norm", "post_norm", *norms):
        shapes |= {f"visual.{norm}.weight": (WIDTH,), f"visual.{norm}.bias": (WIDTH,)}
    for at in range(layers):
        wide = {"attn.to_qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
        wide |= {"mlp.0": (INNER, WIDTH), "mlp.2": (WIDTH, INNER)}
        for name, shape in wide.items():
            shapes |= {
                f"visual.transformer.{at}.{name}.weight": shape,
                f"visual.transformer.{at}.{name}.bias": shape[:1],
            }
    generator = torch.Generator().manual_seed(seed)
    scaled = {name: torch.randn(shape, generator=generator) / 9 for name, shape in shapes.items()}
    return {name: tensor + ("norm" in name and "weight" in name) for name, tensor in scaled.items()}


def textual() -> State:
    return {"textual.token_embedding.weight": torch.ones(7, 4), "log_scale": torch.tensor(4.6)}


def renamed(state: State) -> State:
    """The same tensors as transformers has them, by the inverse of what fuses them."""
    found = {}
    for name, tensor in state.items():
        if name == "visual.head":
            continue
        if ".to_qkv." in name:
            for each, third in zip("qkv", tensor.split(WIDTH), strict=True):
                found[sight_name(name.replace("to_qkv", f"to_{each}"))] = third.clone()
            continue
        found[sight_name(name)] = tensor[0, 0] if "cls" in name else tensor[0] if "pos_" in name else tensor
    return found


def fused(state: State) -> State:
    """Back again: tensors by the names of transformers to the original names and shapes."""
    inside, outside = ({theirs: ours for ours, theirs in names.items()} for names in (INSIDE, OUTSIDE))
    found: State = {}
    for name in sorted(state):
        bare = name.removeprefix("vision_model.")
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", bare)
        ours = outside[bare] if layer is None else f"visual.transformer.{layer[1]}.{inside[layer[2]]}.{layer[3]}"
        if ours.startswith(("visual.cls_", "visual.pos_")):
            found[ours] = state[name].reshape(1, -1, WIDTH)
        elif ".attn.to_" not in ours:
            found[ours] = state[name]
        elif ".to_q." in ours:
            thirds = [state[name.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            found[ours.replace("to_q", "to_qkv")] = torch.cat(thirds)
    return found


def as_published_file(folder: Path, state: State) -> Path:
    torch.save({**state, **textual()}, folder / ORIGINAL)
    return folder / ORIGINAL


def as_published(folder: Path, state: State) -> Path:
    return as_published_file(folder, state).parent


def as_safetensors_of_original_names(folder: Path, state: State) -> Path:
    save_file(state, folder / "clip.safetensors")
    return folder / "clip.safetensors"


def as_safetensors_of_other_names(folder: Path, state: State) -> Path:
    save_file(renamed(state), folder / "clip_vision_h.safetensors")
    return folder / "clip_vision_h.safetensors"


def as_diffusers(folder: Path, state: State) -> Path:
    (folder / "image_encoder").mkdir()
    more = {
        "visual_projection.weight": torch.ones(24, WIDTH),
        "vision_model.embeddings.position_ids": torch.arange(GRID * GRID + 1),
    }
    save_file({**renamed(state), **more}, folder / "image_encoder" / "model.safetensors")
    return folder


def as_part_of_diffusers(folder: Path, state: State) -> Path:
    return as_diffusers(folder, state) / "image_encoder"


def as_whole_clip(folder: Path, state: State) -> Path:
    text = {"text_model.final_layer_norm.weight": torch.ones(4), "text_projection.weight": torch.ones(4, 4)}
    torch.save({**renamed(state), **text, "logit_scale": torch.ones(())}, folder / "pytorch_model.bin")
    return folder


def as_transformers(folder: Path, state: State) -> Path:
    made = encoder()
    names = {"vision_model." + name.removeprefix("vision_model."): name for name in made.state_dict()}
    made.load_state_dict({names[name]: tensor for name, tensor in renamed(state).items()})
    made.save_pretrained(folder)
    return folder


LAYOUTS = [
    as_published_file,
    as_published,
    as_safetensors_of_original_names,
    as_safetensors_of_other_names,
    as_diffusers,
    as_part_of_diffusers,
    as_whole_clip,
    as_transformers,
]


def encoder(**changed: Any) -> Any:
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(
        **{**sizes, "image_size": GRID * PATCH, "patch_size": PATCH, "hidden_act": "gelu", **changed}
    )
    return transformers.CLIPVisionModel(config)


def picture_of(height: int, width: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)


def apart(one: Tensor, other: Tensor) -> float:
    return (one.double() - other).abs().max().item()


def cubic(given: int, wanted: int) -> Tensor:
    """How much of each given level is in each wanted one: Keys' cubic with a = -3/4, the edge repeated, float64."""
    found = torch.zeros(wanted, given, dtype=torch.float64)
    for at in range(wanted):
        middle = (at + 0.5) * given / wanted - 0.5
        for near in range(math.floor(middle) - 1, math.floor(middle) + 3):
            far = abs(middle - near)
            inner = 1.25 * far**3 - 2.25 * far**2 + 1
            outer = -0.75 * (far**3 - 5 * far**2 + 8 * far - 4)
            found[at, min(max(near, 0), given - 1)] += inner if far <= 1 else outer
    return found


def pressed(levels: Tensor) -> Tensor:
    """Levels [H, W, 3] in a square [3, h, h]: float64 by definition, float32 by torch, as the plain way."""
    side = GRID * PATCH
    if levels.dtype == torch.float64:
        down, across = (cubic(given, side) for given in levels.shape[:2])
        return torch.einsum("ah,hwc,bw->cab", down, levels, across)
    return nn.functional.interpolate(levels.movedim(-1, 0)[None], size=(side, side), mode="bicubic")[0]


def norm(x: Tensor, state: State, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]


def attended(x: Tensor, state: State, name: str) -> Tensor:
    mixed = x @ state[f"{name}.to_qkv.weight"].T + state[f"{name}.to_qkv.bias"]
    q, k, v = (part.unflatten(-1, (-1, HEAD_DIM)).transpose(0, 1) for part in mixed.split(WIDTH, dim=-1))
    weights = (q @ k.transpose(1, 2) / HEAD_DIM**0.5).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1) @ state[f"{name}.proj.weight"].T + state[f"{name}.proj.bias"]


def worked(x: Tensor, state: State, name: str) -> Tensor:
    inner = x @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"]
    bent = inner * (1 + (inner / 2**0.5).erf()) / 2
    return bent @ state[f"{name}.2.weight"].T + state[f"{name}.2.bias"]


def by_hand(picture: Tensor, state: State, dtype: torch.dtype, layers: int = LAYERS - 1) -> Tensor:
    """The first layers of the visual half of CLIP, from its definition; without the last as Wan reads it."""
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    square = pressed(picture.to(dtype) / 255 * 2 - 1) / 2 + 0.5
    pixels = (square - torch.tensor(MEAN, dtype=dtype)[:, None, None]) / torch.tensor(STD, dtype=dtype)[:, None, None]
    parts = pixels.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    parts = parts @ state["visual.patch_embedding.weight"].flatten(1).T
    x = torch.cat((state["visual.cls_embedding"][0], parts)) + state["visual.pos_embedding"][0]
    x = norm(x, state, "visual.pre_norm")
    for at in range(layers):
        here = f"visual.transformer.{at}"
        x = x + attended(norm(x, state, f"{here}.norm1"), state, f"{here}.attn")
        x = x + worked(norm(x, state, f"{here}.norm2"), state, f"{here}.mlp")
    return x


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_is_seen_as_published_from_every_layout(
    tmp_path: Path, layout: Callable[[Path, State], Path]
) -> None:
    state, picture = original(1), picture_of(22, 40, seed=1)
    sight = load_sight(layout(tmp_path, state), dtype=torch.float32, device=CPU)
    found, truth = sight.see(picture), by_hand(picture, state, torch.float64)
    assert (found.shape, found.dtype) == ((GRID * GRID + 1, WIDTH), torch.float32)
    assert apart(found, truth) <= 2 * apart(by_hand(picture, state, torch.float32), truth)
    assert apart(by_hand(picture, state, torch.float64, LAYERS), truth) > 0.1, "another layer is another answer"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (GRID * PATCH, GRID * PATCH), (90, 31)])
def test_a_picture_of_any_size_is_pressed_into_the_square(tmp_path: Path, height: int, width: int) -> None:
    state, picture = original(2), picture_of(height, width, seed=height)
    sight = load_sight(as_published(tmp_path, state), dtype=torch.float32, device=CPU)
    truth = by_hand(picture, state, torch.float64)
    assert apart(sight.see(picture), truth) <= 2 * apart(by_hand(picture, state, torch.float32), truth)


def test_in_bfloat16_about_the_same_is_seen(tmp_path: Path) -> None:
    state, picture = original(3), picture_of(22, 40, seed=3)
    sight = load_sight(as_published(tmp_path, state), dtype=torch.bfloat16, device=CPU)
    truth = by_hand(picture, state, torch.float64)
    assert sight.see(picture).dtype == torch.bfloat16
    assert (sight.see(picture).double() - truth).abs().mean() < truth.std() / 20


@pytest.mark.parametrize(
    "picture", [torch.zeros(4, 4, 3), torch.zeros(4, 4, 4, dtype=torch.uint8), torch.zeros(0, 4, 3, dtype=torch.uint8)]
)
def test_what_is_no_picture_is_told(picture: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"expected a picture uint8 \[H, W, 3\], got"):
        Sight(encoder()).see(picture)


def test_the_original_names_lead_to_those_of_transformers_and_back() -> None:
    state = original(4)
    there = renamed(state)
    wanted = {"vision_model." + name.removeprefix("vision_model.") for name in encoder().state_dict()}
    assert there.keys() == wanted
    back = fused(there)
    assert back.keys() == state.keys() - {"visual.head"}
    assert all(torch.equal(back[name], state[name]) for name in back)
    assert sight_name("textual.norm.weight") == "textual.norm.weight"
    assert sight_name("visual.transformer.0.attn.other.weight") == "visual.transformer.0.attn.other.weight"


def test_the_published_encoder_has_its_names_and_sizes() -> None:
    with torch.device("meta"):
        sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
        published = encoder(**sizes, image_size=224, patch_size=14)
    state = published.state_dict()
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (519, 630_766_080)
    assert list(state[next(name for name in state if "position_embedding" in name)].shape) == [257, 1280]
    assert 1280 // HEAD_DIM == 16


def without(state: State, *names: str) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"patch_embedding.weight": torch.ones(1536, 16, 1, 2, 2), "head.head.weight": torch.ones(64, 1536)},
         "holds no CLIP image encoder: what is there looks like a Wan 2.1 transformer 1.3B"),
        ({"decoder.conv1.weight": torch.ones(4, 16, 3, 3, 3), "conv2.weight": torch.ones(16, 16, 1, 1, 1)},
         "holds no CLIP image encoder: what is there looks like a VAE"),
        ({"text_model.final_layer_norm.weight": torch.ones(4)},
         "holds no CLIP image encoder: .* looks like no model known here; its tensors begin with text_model"),
        ({**original(5), "visual.cls_embedding": torch.ones(1, 1, 96)},
         "is a CLIP image encoder that is 96 wide and sees 9 parts; Matrix-Game 2 sees with ViT-H"),
        ({**original(5), "visual.pos_embedding": torch.ones(1, 12, WIDTH)}, "160 wide and sees 11 parts"),
        (without(original(5), "visual.transformer.1.norm2.bias"),
         r"1 of 55 tensors missing \(vision_model.encoder.layers.1.layer_norm2.bias\); 0 unexpected; 0 of another"),
        ({**original(5), "visual.more.weight": torch.ones(2)}, r"1 unexpected \(visual.more.weight\); 0 of another"),
        ({**original(5), "visual.transformer.2.attn.to_qkv.bias": torch.ones(())},
         r"3 of another shape \(vision_model.encoder.layers.2.self_attn.k_proj.bias \[0\] instead of \[160\], "),
        ({**original(5), **renamed(original(5))}, r"holds vision_model\.\S+ twice, as visual\.\S+ and"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_with_what_it_looks_like(tmp_path: Path, state: State, told: str) -> None:
    torch.save(state, tmp_path / ORIGINAL)
    with pytest.raises(WeightsError, match=told):
        load_sight(tmp_path, dtype=torch.float32, device=CPU)


def test_a_folder_without_an_encoder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError,
        match=r"holds no CLIP image encoder: looked for models_clip\*\.pth, .*; get it by `hf download Skywork/",
    ):
        load_sight(tmp_path, dtype=torch.float32, device=CPU)
    with pytest.raises(WeightsError, match="there is no file"):
        load_sight(tmp_path / "nowhere.pth", dtype=torch.float32, device=CPU)


def test_an_encoder_that_sees_no_numbers_is_told(tmp_path: Path) -> None:
    spoilt = original(9)
    spoilt["visual.transformer.0.norm1.weight"] = torch.full_like(
        spoilt["visual.transformer.0.norm1.weight"], torch.nan
    )
    sight = load_sight(as_published(tmp_path, spoilt), dtype=torch.float32, device=CPU)
    with pytest.raises(
        WeightsError, match="the image encoder is damaged: what it sees of a picture holds numbers that"
    ):
        sight.see(torch.zeros(8, 9, 3, dtype=torch.uint8))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({**original(6), "run": Path("/")}, tmp_path / ORIGINAL)
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_sight(tmp_path, dtype=torch.float32, device=CPU)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_in_their_own_dtype_stay_in_their_file(tmp_path: Path) -> None:
    path = as_published_file(tmp_path, {name: tensor.bfloat16() for name, tensor in original(7).items()})
    sight = load_sight(path, dtype=torch.bfloat16, device=CPU)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert not any(parameter.requires_grad for parameter in sight.encoder.parameters())
    assert not sight.encoder.training


def test_transformers_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, real = as_published(tmp_path, original(8)), builtins.__import__

    def without_transformers(name: str, *args: Any, **options: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_transformers)
    with pytest.raises(MissingDependency, match=r"pictures need transformers: .*pip install .* --editable '\.\[wan\]'"):
        load_sight(path, dtype=torch.float32, device=CPU)
