"""Which robots there are, and what people call them: a name, a part of one, or a profile, with a URDF or without."""

from __future__ import annotations

from pathlib import Path

from llamo_ros.core.errors import RobotError
from llamo_ros.core.resources import config_path


def robot_names() -> tuple[str, ...]:
    """Names of the robots that come with the package, sorted."""
    return tuple(sorted(path.stem for path in config_path("robots").glob("*.yaml")))


def robot_called(text: str) -> str:
    """Name of the one robot that ``text`` abbreviates: a last word, a beginning, or the beginning of a word.

    g1 is unitree_g1, and so is unit, if no other robot is called so.

    What belongs to no name is returned as it is: it may be the path of a profile, and whoever loads it says so if not.

    Raises:
        RobotError: several robots are meant equally well; the message lists them.
    """
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


def profile_path(text: str) -> Path:
    """The profile of a robot: of one that comes with the package, or the user's own.

    Raises:
        RobotError: there is none; the message lists the robots there are.
    """
    path = Path(text).expanduser()
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        return path
    name = robot_called(text)
    if name in robot_names():
        return config_path("robots", f"{name}.yaml")
    raise RobotError(
        f"robot {text!r} is unknown. Known robots: {', '.join(robot_names())}; or give the path of a robot profile "
        "(.yaml)."
    )


def split_urdf(text: str) -> tuple[Path, Path | None]:
    """The profile and, if the text has the form ``profile@urdf``, the URDF.

    Raises:
        RobotError: as for :func:`profile_path`.
    """
    profile, at, urdf = text.partition("@")
    if not at or Path(text).expanduser().is_file():
        return profile_path(text), None
    return profile_path(profile), Path(urdf).expanduser()
