"""Robot names as people type them."""

from __future__ import annotations

from llamo_ros.core.errors import RobotError


def robot_called(text: str) -> str:
    """Name of the one robot that ``text`` abbreviates: a last word, a beginning, or the beginning of a word.

    g1 is unitree_g1, and so is unit, if no other robot is called so.

    What belongs to no name is returned as it is: it may be the path of a profile, and whoever loads it says so if not.

    Raises:
        RobotError: several robots are meant equally well; the message lists them.
    """
    from llamo_ros.retarget.profile import robot_names

    names, wanted = robot_names(), text.lower()
    if text in names or not wanted:
        return text
    for fits in (
        [name for name in names if name == wanted],
        [name for name in names if name.endswith(f"_{wanted}")],
        [name for name in names if name.startswith(wanted)],
        [name for name in names if f"_{wanted}" in name],
    ):
        if len(fits) > 1:
            raise RobotError(f"robot {text!r} may be {' or '.join(fits)}. Write more of its name.")
        if fits:
            return fits[0]
    return text
