"""Where the package's own files are: parameter files and checkpoints.

Three places can hold them, depending on how the package came here: a wheel or colcon puts `config/` inside the package,
a source checkout (an editable install, or tests run in the repository) has it beside the package.
"""

from __future__ import annotations

from pathlib import Path

from llamo_ros.core.errors import LlamoError

_PACKAGE = Path(__file__).absolute().parent.parent
_IS_CHECKOUT = (_PACKAGE.parent / "package.xml").is_file()
_CONFIG = (_PACKAGE.parent if _IS_CHECKOUT else _PACKAGE) / "config"
_ASSETS = _PACKAGE / "assets"


class ResourceError(LlamoError, FileNotFoundError):
    """A file that should have come with the package is not there."""


def config_path(*parts: str) -> Path:
    """Path of a parameter file or folder that comes with the package, e.g. `config_path("robots", "unitree_g1.yaml")`.

    Args:
        parts: Names below `config/`. None: the folder itself.

    Returns:
        An absolute path to something that exists.

    Raises:
        ResourceError: there is no such file or folder.
    """
    return _existing(_CONFIG, parts)


def assets_path(*parts: str) -> Path:
    """Path of a checkpoint folder or file that comes with the package, e.g. `assets_path("llamo-mini")`.

    Args:
        parts: Names below `llamo_ros/assets/`. None: the folder itself.

    Returns:
        An absolute path to something that exists.

    Raises:
        ResourceError: there is no such file or folder.
    """
    return _existing(_ASSETS, parts)


def _existing(root: Path, parts: tuple[str, ...]) -> Path:
    path = root.joinpath(*parts)
    if path.exists():
        return path
    parent = path.parent
    while parent != root and root in parent.parents and not parent.exists():
        parent = parent.parent
    if not root.exists():
        raise ResourceError(f"{root} does not exist: the installation is incomplete. Install llamo_ros again.")
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith((".", "__")))
    raise ResourceError(f"{path} does not exist. {parent} holds: {', '.join(names) or 'nothing'}.")
