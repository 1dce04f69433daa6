"""Prompts that say how and how long, in the words that training uses."""

from __future__ import annotations

from llamo_ros.model.text_tokenizer import checked_prompt
from llamo_ros.pipelines.instructions import Instructions


def worded_prompt(text: str, *, style: str | None = None, seconds: float | None = None) -> str:
    """A prompt with a style and a length said in it: "a person bows like an old person for 3 seconds".

    Args:
        text: What to do; returned as it is if there is neither style nor length.
        style: Words of how, such as "like an old person".
        seconds: Length that the model is to keep by itself, [s], at least 0.1.

    Raises:
        PromptError: the text or the style is empty, too long, or not text.
        ParameterError: the length is too short or not finite.
    """
    text = checked_prompt(text)
    if style is None and seconds is None:
        return text
    words = Instructions.load()
    if style is not None:
        text = words.default("text_to_motion_style", caption=text, style=checked_prompt(style))[0].text
    if seconds is not None:
        text = words.default("text_to_motion_duration", caption=text, seconds=seconds)[0].text
    return text
