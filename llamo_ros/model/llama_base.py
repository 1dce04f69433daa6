"""A Hugging Face Llama, as a base: its sizes, its weights under the names of the text branch, its tokenizer.

transformers finds and interprets the files; it is needed for this alone, not to run the model that comes of it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from llamo_ros.core.errors import CheckpointError, ParameterError
from llamo_ros.model.config import BackboneConfig, RopeScaling
from llamo_ros.model.llama import LlamaBranch
from llamo_ros.model.shards import INDEX, SINGLE, Shards
from llamo_ros.model.text_tokenizer import TextTokenizer

MIN_POSITIONS = 256  # a prompt, and a window of 75 latents with what follows it
LICENCE_FILES = ("LICENSE*", "USE_POLICY*", "NOTICE*")
HUB_FILES = ("config.json", "generation_config.json", "special_tokens_map.json", "tokenizer*", "chat_template*")
HUB_WEIGHTS = (SINGLE, INDEX, "model-*.safetensors")


@dataclass(frozen=True)
class LlamaBase:
    """A Llama that was checked to be one the text branch can run exactly.

    Attributes:
        name: As it was asked for: a folder, or an id on the hub.
        folder: Where its files are.
        config: Sizes of the text branch.
        dtype: Of its weights.
        shards: Its weights, under transformers' names.
    """

    name: str
    folder: Path
    config: BackboneConfig
    dtype: torch.dtype
    shards: Shards

    def tensor(self, name: str) -> Tensor:
        """Weight by its name in the text branch, in mapped memory.

        Raises:
            CheckpointError: it is damaged.
        """
        return self.shards.tensor(_base_name(name))

    def tokenizer(self) -> TextTokenizer:
        """Its tokenizer, with chat template and special tokens.

        Raises:
            CheckpointError: there is none, or it has more tokens than the model.
        """
        transformers = require_transformers()
        try:
            loaded = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except Exception as error:  # what a damaged file raises is not documented
            raise CheckpointError(
                f"{self.folder} has no readable tokenizer ({_first_line(error)}); copy its tokenizer files again."
            ) from error
        if not loaded.is_fast:
            raise CheckpointError(
                f"the tokenizer of {self.folder} has no tokenizer.json and cannot be converted to one."
            )
        with tempfile.TemporaryDirectory() as written:
            loaded.save_pretrained(written)  # one layout, however old the base's own is
            for name in ("tokenizer.json", "generation_config.json"):
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, Path(written, name))
            try:
                tokenizer = TextTokenizer.load(Path(written, "tokenizer.json"))
            except CheckpointError as error:
                raise CheckpointError(str(error).replace(written, str(self.folder))) from error
        if tokenizer.largest_id >= self.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer of {self.folder} has ids up to {tokenizer.largest_id} and its model "
                f"{self.config.vocab_size} embeddings; they do not belong together."
            )
        return tokenizer

    def licence_files(self) -> list[Path]:
        """Licence and use policy of the base, which go wherever its weights go."""
        return sorted({file for pattern in LICENCE_FILES for file in self.folder.glob(pattern) if file.is_file()})


def open_base(name_or_folder: str) -> LlamaBase:
    """Find a Llama, download it if it is an id on the hub, and check that the text branch can run it exactly.

    Raises:
        CheckpointError: it is not there, incomplete, or no Llama that the text branch can run.
        ParameterError: transformers is not installed.
    """
    folder = _folder_of(name_or_folder)
    transformers = require_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # wrong values raise StrictDataclassError, ZeroDivisionError and more
        raise CheckpointError(f"{folder} is no Hugging Face checkpoint ({_first_line(error)}).") from error
    backbone = backbone_of(config, folder)
    if not (folder / INDEX).is_file() and not (folder / SINGLE).is_file():
        raise CheckpointError(
            f"{folder} holds no safetensors weights, neither {SINGLE} nor {INDEX}. Convert it with transformers: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
        )
    shards = Shards(folder)
    _check_tensors(shards, backbone)
    return LlamaBase(name_or_folder, folder, backbone, _dtype_of(shards), shards)


def backbone_of(config: Any, folder: Path) -> BackboneConfig:
    """Sizes of the text branch for a configuration of transformers.

    Raises:
        CheckpointError: it is no Llama, or has parts that the text branch lacks.
    """
    if config.model_type != "llama":
        raise CheckpointError(f"{folder} is a {config.model_type!r} model; only 'llama' models can be a base.")
    rope = dict(config.rope_parameters)
    unsupported = {
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "hidden_act": config.hidden_act != "silu" and config.hidden_act,
        "rope_type": rope.get("rope_type") not in ("default", "llama3") and rope.get("rope_type"),
        "partial_rotary_factor": rope.get("partial_rotary_factor", 1.0) != 1.0 and rope["partial_rotary_factor"],
        "quantization_config": getattr(config, "quantization_config", None) is not None,
    }
    found = [f"{name} = {value!r}" for name, value in unsupported.items() if value]
    if found:
        raise CheckpointError(
            f"{folder} is a Llama with {', '.join(found)}, which the text branch does not have. Expected no biases, "
            "hidden_act 'silu', rope_type 'default' or 'llama3' over whole heads, and plain weights."
        )
    if config.max_position_embeddings < MIN_POSITIONS:
        raise CheckpointError(
            f"{folder} reads {config.max_position_embeddings} positions; at least {MIN_POSITIONS} are needed for a "
            "prompt and the 10 s of motion behind it. Choose a Llama with a longer context."
        )
    scaling = None
    if rope["rope_type"] == "llama3":
        scaling = RopeScaling(
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_max_positions=int(rope["original_max_position_embeddings"]),
        )
    head_size = config.head_dim or config.hidden_size // config.num_attention_heads
    is_usual = head_size * config.num_attention_heads == config.hidden_size
    return BackboneConfig(
        vocab_size=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        ffn_width=config.intermediate_size,
        rope_theta=float(rope["rope_theta"]),
        norm_eps=config.rms_norm_eps,
        max_positions=config.max_position_embeddings,
        tie_embeddings=bool(config.tie_word_embeddings),
        head_size=0 if is_usual else head_size,
        rope_scaling=scaling,
    )


def differences(found: BackboneConfig, expected: BackboneConfig) -> list[str]:
    """Fields in which two backbones differ, each as "name: found instead of expected"."""
    pairs = ((f.name, getattr(found, f.name), getattr(expected, f.name)) for f in fields(BackboneConfig))
    return [f"{name}: {a} instead of {b}" for name, a, b in pairs if a != b]


def require_transformers() -> ModuleType:
    """The transformers library.

    Raises:
        ParameterError: it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ParameterError(
            "Hugging Face checkpoints and chat templates need the transformers library, which is not installed here. "
            "Run `pip install 'llamo-ros[hub]'`."
        ) from error
    return transformers


def _folder_of(name_or_folder: str) -> Path:
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    is_hub_id = name_or_folder.count("/") == 1 and not name_or_folder.startswith((".", "/", "~"))
    if not is_hub_id:
        raise CheckpointError(
            f"there is no folder {name_or_folder!r}. Give the folder of a Hugging Face Llama, or its id on the hub, "
            "for example meta-llama/Llama-3.2-1B-Instruct."
        )
    require_transformers()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(name_or_folder, allow_patterns=[*HUB_FILES, *HUB_WEIGHTS, *LICENCE_FILES])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{name_or_folder!r} is no folder here and could not be had from the hub ({_first_line(error)}). Check the "
            "id and the network; for a gated model accept its licence on its page and log in with `hf auth login`."
        ) from error
    return Path(found)


def _base_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def _check_tensors(shards: Shards, config: BackboneConfig) -> None:
    with torch.device("meta"):
        branch = LlamaBranch(config, with_embedding=True)
    expected = {_base_name(name): tuple(tensor.shape) for name, tensor in branch.state_dict().items()}
    # Old checkpoints also hold constants, and a tied embedding twice.
    found = {name: shape for name, shape in shards.shapes.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.tie_embeddings and "lm_head.weight" in found and "model.embed_tokens.weight" in found:
        if not torch.equal(shards.tensor("lm_head.weight"), shards.tensor("model.embed_tokens.weight")):
            raise CheckpointError(
                f"{shards.folder} says that its embeddings are tied and holds an lm_head that differs from them; "
                "set tie_word_embeddings to false in its config.json."
            )
        del found["lm_head.weight"]
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        detail = ", ".join(f"{n}: {found.get(n, 'missing')} instead of {expected.get(n, 'none')}" for n in wrong[:3])
        raise CheckpointError(f"{shards.folder} does not fit its config.json in {len(wrong)} tensors ({detail}).")


def _dtype_of(shards: Shards) -> torch.dtype:
    first, *others = set(shards.dtypes.values())
    if not others and isinstance(first, torch.dtype):
        return first
    names = ", ".join(sorted(map(str, (first, *others))))
    raise CheckpointError(f"{shards.folder} holds tensors of type {names}; expected one floating type for all weights.")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
