"""The text of a robot profile: YAML with the comments that a person needs to correct it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

_COMMENTS = {
    "points": "Places that the URDF has no link for, [m] in the frame of a link; used below as if they were links.",
    "orientations": "Link orientations that follow a human joint; `rotation` (roll, pitch, yaw, [rad]) is the "
    "orientation of\n# the link in the human joint's frame: T-pose, palms down, all joint frames x forward, y left, "
    "z up.",
    "limbs": "Limbs of two segments. The robot's segments point where the human's do, and the end reaches the scaled "
    "human\n# vector. Higher weights count for more.",
    "feet": "Feet: the last link of a leg, and the corners of its sole in that link's frame, [m].",
    "collision": "What the links fill of space, [m] in the frame of the link: all points within `radius` of the line "
    "`from` - `to`.\n# Pairs under `ignore` touch by construction.",
    "limits": "Angles in [rad], lengths in [m], time in [s]; velocity_scale is of the URDF's limits.",
    "neutral": "Posture the joints are drawn to where the human leaves them free, [rad]; joints not listed: 0.",
    "standing": "Posture to start from and to return to, [rad]; joints not listed: 0.",
}


def profile_text(content: dict[str, Any], notes: Sequence[str] = ()) -> str:
    """YAML of a profile.

    Args:
        content: The profile.
        notes: What to say at the top: what the reader should check.
    """
    lines = [f"# Robot profile of {content['name']}, drafted from its URDF; docs/robots.md explains every entry."]
    if notes:
        lines += ["# Please check:", *(f"# - {note}" for note in notes)]
    for key, value in content.items():
        if key in _COMMENTS:
            lines += ["", f"# {_COMMENTS[key]}"]
        lines += _entry(key, value, 0)
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, depth: int) -> list[str]:
    """A mapping of plain values on one line where it fits, else one line for each of its entries."""
    indent = "  " * depth
    head = f"{indent}{_scalar(key)}:"
    flat = f"{head} {_flow(value)}"
    plain = not isinstance(value, dict) or not any(isinstance(part, dict) for part in value.values())
    if not value or not isinstance(value, dict) or (plain and depth and len(flat) <= 120):
        return [flat]
    return [head, *(line for name, part in value.items() for line in _entry(name, part, depth + 1))]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(part) for part in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """As YAML writes it, with quotes where it needs them: a name such as ``no`` or ``1`` is a string."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
