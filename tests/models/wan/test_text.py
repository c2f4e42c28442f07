"""Prompts are embedded as published, from every layout of the files, and remembered."""

from __future__ import annotations

import builtins
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldsim.errors import ConfigError, MissingDependency, WeightsError
from worldsim.models.wan.keymap import TEXT_INSIDE, TEXT_OUTSIDE
from worldsim.models.wan.text import LENGTH, PUBLISHED, REMEMBERED, WanText, cleaned, lacking_text, load_text

transformers = pytest.importorskip("transformers")
pytest.importorskip("ftfy")
CPU = torch.device("cpu")
SENTENCES = [
    "a calm sea under a red sky",
    "a storm comes up over the hills",
    "she walks along the sea and the sky is calm",
]
PROMPT = "a calm sea, and a storm over the hills"


def encoder(seed: int, layers: int = 2) -> nn.Module:
    """A tiny encoder whose every weight is random, norms too."""
    sizes = {"vocab_size": 60, "d_model": 24, "d_kv": 5, "d_ff": 20, "num_layers": layers, "num_heads": 3}
    made: nn.Module = transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 3 + ("norm" in name))
    return made


@cache  # the same words in another training may get other numbers
def trained_tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    trained = tokenizers.Tokenizer(tokenizers.models.Unigram())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(SENTENCES, trainer)
    trained.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", trained.token_to_id("</s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def save_tokenizer(folder: Path) -> None:
    trained_tokenizer().save_pretrained(folder)


def as_transformers(folder: Path, model: nn.Module) -> Path:
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def as_diffusers(folder: Path, model: nn.Module) -> Path:
    model.save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    return folder


def published(model: nn.Module) -> dict[str, Tensor]:
    """The tensors by the names of the original file."""
    inside = {theirs: ours for ours, theirs in TEXT_INSIDE.items()}
    outside = {theirs: ours for ours, theirs in TEXT_OUTSIDE.items()}
    found = {}
    for name, tensor in model.state_dict().items():
        block = re.fullmatch(r"encoder\.block\.(\d+)\.(.+)", name)
        if block is not None:
            found[f"blocks.{block[1]}.{inside[block[2]]}"] = tensor
        elif name in outside:
            found[outside[name]] = tensor
    return found


def as_published(folder: Path, model: nn.Module) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(published(model), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    save_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def as_published_file(folder: Path, model: nn.Module) -> Path:
    return as_published(folder, model) / "models_t5_umt5-xxl-enc-bf16.pth"


def as_part_of_diffusers(folder: Path, model: nn.Module) -> Path:
    return as_diffusers(folder, model) / "text_encoder"


LAYOUTS = [as_transformers, as_diffusers, as_part_of_diffusers, as_published, as_published_file]


def as_a_pipeline_does(model: nn.Module, tokenizer: Callable[..., Any], prompt: str) -> Tensor:
    """Padded to the full length, masked, and cut to the real tokens."""
    told = tokenizer([prompt], padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        found: Tensor = model(told.input_ids, attention_mask=told.attention_mask).last_hidden_state[0]
    return found[: int(told.attention_mask.sum())]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_is_embedded_as_published_from_every_layout(
    tmp_path: Path, layout: Callable[[Path, nn.Module], Path]
) -> None:
    model = encoder(1)
    text = load_text(layout(tmp_path / "wan", model), dtype=torch.float32, device=CPU)
    tokenizer = trained_tokenizer()
    plain = as_a_pipeline_does(model, tokenizer, PROMPT)
    truth = as_a_pipeline_does(encoder(1).double(), tokenizer, PROMPT)
    found = text.encode(PROMPT)
    assert found.shape == plain.shape
    assert found.shape[1] == 24
    assert (found.double() - truth).abs().max() <= 2 * (plain.double() - truth).abs().max()


@pytest.mark.parametrize("layout", [as_transformers, as_diffusers, as_published])
def test_what_a_folder_lacks_of_encoder_and_tokenizer_is_told_at_once(
    tmp_path: Path, layout: Callable[[Path, nn.Module], Path]
) -> None:
    assert lacking_text(tmp_path) == [*PUBLISHED]
    folder = layout(tmp_path / "wan", encoder(1))
    assert lacking_text(folder) == []
    for file in folder.rglob("tokenizer.json"):
        file.unlink()
    assert lacking_text(folder) == ["google/umt5-xxl/tokenizer.json"]


def test_the_transformer_that_was_converted_to_be_there_is_no_encoder(tmp_path: Path) -> None:
    as_transformers(tmp_path, encoder(1))
    (tmp_path / "card.json").write_text("{}")
    assert lacking_text(tmp_path) == [PUBLISHED[0]]
    with pytest.raises(WeightsError, match=r"holds no umT5 text encoder: looked for models_t5"):
        load_text(tmp_path, dtype=torch.float32, device=CPU)
    as_published(tmp_path, encoder(1))
    assert lacking_text(tmp_path) == []
    load_text(tmp_path, dtype=torch.float32, device=CPU)


def test_a_whole_model_gives_its_encoder(tmp_path: Path) -> None:
    model = encoder(1)
    save_tokenizer(tmp_path)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "shared.weight"}
    torch.save({**state, "decoder.block.0.x": torch.ones(2), "lm_head.weight": torch.ones(2)}, tmp_path / "a.bin")
    (tmp_path / "a.bin").rename(tmp_path / "pytorch_model.bin")
    text = load_text(tmp_path, dtype=torch.float32, device=CPU)
    assert torch.equal(text.encoder.state_dict()["shared.weight"], model.state_dict()["shared.weight"])


def test_a_tokenizer_elsewhere_is_used_when_named(tmp_path: Path) -> None:
    as_published(tmp_path / "wan", encoder(1))
    (tmp_path / "wan" / "google" / "umt5-xxl").rename(tmp_path / "pieces")
    path = tmp_path / "wan"
    text = load_text(path, dtype=torch.bfloat16, device=CPU, tokenizer=tmp_path / "pieces")
    assert text.encode(PROMPT).dtype == torch.bfloat16


def test_a_missing_tokenizer_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    path = as_published(tmp_path, encoder(1))
    (path / "google").rename(path / "elsewhere")
    words = f"there is no tokenizer; looked for tokenizer.json or spiece.model in {path}/google/umt5-xxl, {path}/umt5"
    with pytest.raises(WeightsError, match=re.escape(words)):
        load_text(path, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", None])
def test_a_tokenizer_that_cannot_be_read_is_told(tmp_path: Path, text: str | None) -> None:
    path = as_published(tmp_path, encoder(1))
    folder = path / "google" / "umt5-xxl"
    for file in folder.iterdir():
        file.unlink()
    (folder / ("tokenizer.json" if text is not None else "spiece.model")).write_text(text or "")
    with pytest.raises(WeightsError, match=r"google/umt5-xxl holds no tokenizer that can be read"):
        load_text(path, dtype=torch.float32, device=CPU)


def test_a_tokenizer_is_read_as_it_is_whatever_its_folder_calls_it(tmp_path: Path) -> None:
    path = as_published(tmp_path, encoder(1))
    settings = path / "google" / "umt5-xxl" / "tokenizer_config.json"
    wanted = load_text(path, dtype=torch.float32, device=CPU).encode(PROMPT)
    settings.write_text(settings.read_text().replace('"tokenizer_class": "', '"tokenizer_class": "T5'))
    assert torch.equal(load_text(path, dtype=torch.float32, device=CPU).encode(PROMPT), wanted)
    settings.unlink()
    assert torch.equal(load_text(path, dtype=torch.float32, device=CPU).encode(PROMPT), wanted)


def test_what_is_no_text_encoder_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no umT5 text encoder: looked for models_t5\*"):
        load_text(tmp_path, dtype=torch.float32, device=CPU)
    save_tokenizer(tmp_path)
    path = tmp_path / "models_t5.pth"
    torch.save(
        {"patch_embedding.weight": torch.ones(1536, 16, 1, 2, 2), "head.head.weight": torch.ones(64, 1536)}, path
    )
    with pytest.raises(WeightsError, match=r"holds no umT5 text encoder: .* looks like a Wan 2.1 transformer 1.3B"):
        load_text(tmp_path, dtype=torch.float32, device=CPU)
    state = published(encoder(1))
    torch.save({name: tensor for name, tensor in state.items() if name != "blocks.1.norm2.weight"}, path)
    with pytest.raises(WeightsError, match=r"1 of 22 tensors missing \(encoder.block.1.layer.1.layer_norm.weight\)"):
        load_text(tmp_path, dtype=torch.float32, device=CPU)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_in_their_own_dtype_stay_in_their_file(tmp_path: Path) -> None:
    path = as_published_file(tmp_path, encoder(1).bfloat16())
    text = load_text(path, dtype=torch.bfloat16, device=CPU)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert not any(parameter.requires_grad for parameter in text.encoder.parameters())
    assert not text.encoder.training


def spoilt(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "model": {"type": "Nix"}}


def without_end(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "post_processor": None}


def longer(settings: dict[str, Any]) -> dict[str, Any]:
    model = {**settings["model"], "vocab": [*settings["model"]["vocab"], *([f"{at}", -9.0] for at in range(60))]}
    return {**settings, "model": model}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (spoilt, r"holds no tokenizer that can be read \(.*put google/umt5-xxl/tokenizer\.json of Wan-AI"),
        (without_end, r"a damaged one: .* puts \[\] behind a prompt, which ends with \[1\]; put google/umt5"),
        (longer, r"of another text encoder, .* has \d+ tokens, of which the encoder knows 60"),
    ],
)
def test_a_tokenizer_that_is_damaged_or_of_another_encoder_is_told(tmp_path: Path, change: Any, told: str) -> None:
    as_transformers(tmp_path, encoder(1, layers=1))
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(WeightsError, match=told):
        load_text(tmp_path, dtype=torch.float32, device=CPU)


def test_an_encoder_that_answers_with_no_numbers_is_told(tmp_path: Path) -> None:
    broken = encoder(1, layers=1)
    with torch.no_grad():
        next(broken.parameters())[:] = torch.nan
    text = load_text(as_transformers(tmp_path, broken), dtype=torch.float32, device=CPU)
    with pytest.raises(WeightsError, match="the text encoder is damaged: what it makes of a prompt holds numbers"):
        text.encode("a calm sea")


class Words:
    """A tokenizer of words: each is its length, and 1 ends a text."""

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        ids = [*map(len, text.split()), 1]
        most = options.get("max_length", len(ids))
        return {"input_ids": ids if len(ids) <= most else [*ids[: most - 1], 1]}


class Counts(nn.Module):
    """An encoder that keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.asked: list[list[int]] = []

    def forward(self, ids: Tensor) -> Any:
        self.asked.append(ids[0].tolist())
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=ids[..., None] * self.weight)


def test_a_long_prompt_is_cut_and_the_rest_is_told() -> None:
    asked = Counts()
    text = WanText(asked, Words())
    long = "wide " * 600
    assert text.encode(long).shape == (LENGTH, 1)
    assert asked.asked == [[4] * (LENGTH - 1) + [1]]
    assert text.left_out(long) == 601 - LENGTH
    assert text.left_out("wide " * (LENGTH - 1)) == 0
    assert text.left_out("wide " * LENGTH) == 1
    assert WanText(asked, Words(), length=3).left_out("a b c d") == 2


def test_a_long_prompt_is_cut_by_a_real_tokenizer_too(tmp_path: Path) -> None:
    text = load_text(as_transformers(tmp_path, encoder(1, layers=1)), dtype=torch.float32, device=CPU)
    assert text.encode("sea " * 900).shape == (LENGTH, 24)
    tokens = len(trained_tokenizer()(" ".join(["sea"] * 900))["input_ids"])
    assert text.left_out("sea " * 900) == tokens - LENGTH > 0
    assert text.encode("").shape[0] == 1


def test_prompts_are_remembered_and_the_least_recent_is_forgotten() -> None:
    asked = Counts()
    text = WanText(asked, Words(), remembered=2)
    first = text.encode("a")
    assert text.encode("  a\n") is first
    text.encode("bb")
    assert text.encode("a") is first  # so that bb is the least recent
    text.encode("ccc")
    assert text.encode("a") is first
    text.encode("bb")
    assert [ids[0] for ids in asked.asked] == [1, 2, 3, 2]
    assert REMEMBERED > 1
    assert not first.requires_grad


@pytest.mark.parametrize("wrong", [{"length": 0}, {"remembered": 0}])
def test_nothing_heard_or_remembered_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one token is heard and one prompt remembered"):
        WanText(Counts(), Words(), **wrong)


@pytest.mark.parametrize(
    ("prompt", "clean"),
    [
        ("  a  calm\n\tsea ", "a calm sea"),
        ("a “calm” sea", 'a "calm" sea'),
        ("salt &amp; foam", "salt & foam"),
        ("<sea> &amp;amp; foam", "<sea> & foam"),
        ("the cafÃ© by the sea", "the café by the sea"),
        ("", ""),
    ],
)
def test_a_prompt_is_cleaned_as_published(prompt: str, clean: str) -> None:
    assert cleaned(prompt) == clean
    pipeline = pytest.importorskip("diffusers.pipelines.wan.pipeline_wan")
    assert pipeline.prompt_clean(prompt) == clean


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("ftfy", lambda: cleaned("a")),
        ("transformers", lambda: load_text(Path("nowhere"), dtype=torch.float32, device=CPU)),
    ],
)
def test_a_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, library: str, call: Callable[[], object]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == library:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"pip install .* --editable '\.\[wan\]'"):
        call()
