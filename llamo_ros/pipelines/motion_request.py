"""MotionRequest: a prompt that holds motion, as a :class:`~llamo_ros.pipelines.motion_engine.MotionEngine` takes it.

The words come from the templates that training uses, and the sequence is laid out as in training:
[BOS]{text}[BOM]{motion}[EOM]{text}[BOM], then what is made (paper, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from llamo_ros.model.llamo import Llamo
from llamo_ros.model.passages import Prompt
from llamo_ros.model.sequence import Markers, MotionPart, Part, TextPart, prompt_of
from llamo_ros.model.stream_state import StreamState
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.pipelines import instructions
from llamo_ros.pipelines.stream_frames import StreamFrames


@dataclass(frozen=True)
class MotionRequest:
    """A prompt that holds motion, and where its frames begin.

    Attributes:
        text: What is shown as the prompt.
        prompt: Words and given motions.
        null: What guidance measures the prompt against.
        frames: Turns features into frames; knows the frame before the first.
        state: Of the VAE's decoder behind the given motion that is continued; None where a motion begins.
    """

    text: str
    prompt: Prompt
    null: Prompt
    frames: StreamFrames
    state: StreamState | None = None


def sequence_of(
    drawn: Sequence[instructions.Part], motions: Mapping[str, Tensor], tokenizer: TextTokenizer
) -> list[Part]:
    """Parts of a prompt of :class:`~llamo_ros.pipelines.instructions.Instructions`, up to the motion to be made.

    Args:
        drawn: Text, names of motions, and last the ``target``.
        motions: Normalised latents (L, C) by name.
        tokenizer: Encodes each text on its own, as training does.
    """
    parts: list[Part] = []
    for part in drawn[:-1]:
        if isinstance(part, instructions.TextPart):
            parts.append(TextPart(tuple(tokenizer.encode(part.text))))
        else:
            parts.append(MotionPart(motions[part.name]))
    return parts


def laid_out(parts: Sequence[Part], model: Llamo, tokenizer: TextTokenizer) -> Prompt:
    """The prompt of a sequence, with the ids of a model and its tokenizer."""
    return prompt_of(parts, Markers.of(model, tokenizer.bos, tokenizer.eos))
