from __future__ import annotations

import pytest

from llamo_ros.core.errors import ParameterError, PromptError
from llamo_ros.pipelines.prompt_wording import worded_prompt


def test_style_and_length_are_said_as_in_training() -> None:
    assert worded_prompt("A person bows.") == "A person bows."
    assert worded_prompt("A person bows.", style="like an old person") == "a person bows like an old person"
    assert worded_prompt("a person bows", seconds=2.5) == "a person bows for 2.5 seconds"
    both = worded_prompt("a person bows", style="angrily", seconds=3.0)
    assert both == "a person bows angrily for 3 seconds"


def test_what_cannot_be_said_is_refused() -> None:
    for words in ({"text": " "}, {"text": "walk", "style": ""}):
        with pytest.raises(PromptError):
            worded_prompt(**words)
    with pytest.raises(ParameterError, match="at least 0.1"):
        worded_prompt("walk", seconds=0.0)
