"""Subcommands around the language model underneath: make a checkpoint of a Llama, and talk with a checkpoint."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from llamo_ros.cli.device import device_of
from llamo_ros.core.errors import LlamoError, PromptError

if TYPE_CHECKING:
    from llamo_ros.pipelines.chat import Chat


def init(options: argparse.Namespace) -> None:
    """Make a LLaMo checkpoint of a Hugging Face Llama."""
    from llamo_ros.model.checkpoint import skeleton
    from llamo_ros.model.conversion import config_for, convert_base
    from llamo_ros.model.llama_base import open_base

    began = time.monotonic()
    base = open_base(options.base)
    config = config_for(base, options.preset, options.dtype)
    config = convert_base(base, config, options.out, vae=options.vae, seed=options.seed, on_shard=_show_shard)
    counts = skeleton(config).parameter_counts()
    print(
        f"{options.out}: preset {config.name}, {config.dtype}, {sum(counts.values()) / 1e9:.3f} billion parameters, "
        f"made in {time.monotonic() - began:.0f} s"
    )
    for name, count in counts.items():
        print(f"  {name:14} {count:14,}")
    print(f"Its language is that of {base.name}: llamo chat --checkpoint {options.out}")
    vae = "Its motion side" if options.vae else "Its motion side, VAE included,"
    print(f"{vae} is untrained: llamo train motion")


def chat(options: argparse.Namespace) -> None:
    """Converse with the language side of a model."""
    from llamo_ros.model.checkpoint import checkpoint_folder, read_config
    from llamo_ros.model.text_generation import TextOptions
    from llamo_ros.pipelines.chat import Chat

    writing = TextOptions(options.temperature, options.max_tokens)
    config, metadata = read_config(checkpoint_folder(options.checkpoint))
    name, licence = metadata.get("name", config.name), metadata.get("licence", "not recorded")
    _note(f"model {name}, licence of its weights: {licence}")
    conversation = Chat.from_checkpoint(options.checkpoint, device_of(options.device), writing, options.seed)
    _note(
        "it answers in turns, by the chat template of its base"
        if conversation.has_template
        else "it has no chat template: it goes on with your text"
    )
    if options.prompt is not None:
        _write_answer(conversation, options.prompt)
    elif sys.stdin is not None and sys.stdin.isatty():
        _converse(conversation)
    else:
        _write_answer(conversation, _piped_text())


def _converse(conversation: Chat) -> None:
    """Turns until Ctrl-D, or Ctrl-C at the prompt; Ctrl-C during an answer ends the answer."""
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not text.strip():
            continue
        try:
            _write_answer(conversation, text)
        except KeyboardInterrupt:
            print()
        except LlamoError as error:
            _note(str(error))


def _write_answer(conversation: Chat, text: str) -> None:
    for piece in conversation.answer(text):
        print(piece, end="", flush=True)
    print()


def _piped_text() -> str:
    if sys.stdin is None:  # closed by whoever started this
        raise PromptError("there is no standard input to read the text from; give it with --prompt.")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise PromptError("what is piped in is not valid text; send it as UTF-8.") from error


def _show_shard(number: int, count: int) -> None:
    if sys.stderr.isatty():
        text = f"shard {number} of {count}" if number < count else ""
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _note(text: str) -> None:
    print(f"llamo: {text}", file=sys.stderr)
