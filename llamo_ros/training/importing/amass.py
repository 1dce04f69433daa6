"""AMASS: a folder of .npz files with SMPL, SMPL-H or SMPL-X poses at 60 to 250 FPS, z up.

Read are the 22 body joints and ``trans``. Hands, face, soft tissue and body shape (``betas``, ``gender``) are not: each
body gets smpl22's lengths, so distances travelled are those of the performer on legs of another length.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llamo_ros.core.errors import DatasetError, ParameterError
from llamo_ros.motion.npz import load_npz
from llamo_ros.training.importing.takes import ImportedClip, clips_of_file, take_on_floor
from llamo_ros.training.importing.texts import FileTexts, file_key, read_texts
from llamo_ros.training.importing.walking import files_below

NOTES = (
    "The 22 body joints are imported; hands, face and soft tissue are left out.",
    "Body shape (betas, gender) is ignored: every body has smpl22's bone lengths, distances are not rescaled.",
)
# Files of AMASS without motion: body shape, and the first stage of MoSh++.
_SHAPE_FILES = ("shape", "stagei")
_ENDINGS = ("_poses", "_stageii")


def take_name(path: str) -> str:
    """A take's name, the same in every release of AMASS: ``KIT/3/kick_poses.npz`` is ``KIT/3/kick``."""
    name = file_key(path).replace(" ", "_")
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name


class Amass:
    """A folder of AMASS archives, as unpacked.

    Args:
        folder: Folder that holds the data sets (``KIT``, ``CMU``, ...); any depth.
        texts: Table of captions (see :mod:`~llamo_ros.training.importing.texts`), or None: clips without captions.
        longest_s: Takes without captions are cut into equal pieces of at most this, [s].

    Raises:
        DatasetError: the folder or the table cannot be read, or no file of the table is in the folder.
        ParameterError: ``longest_s`` is not positive.
    """

    origin = "AMASS"
    notes = NOTES

    def __init__(self, folder: str | Path, texts: str | Path | None = None, longest_s: float = 20.0) -> None:
        if not longest_s > 0:
            raise ParameterError(f"longest_s is {longest_s}, expected a positive number of seconds.")
        self._folder, self._longest_s = Path(folder), longest_s
        table = {} if texts is None else read_texts(texts)
        self._texts = {take_name(key): value for key, value in table.items()}
        if texts is not None and not any(self._texts_of(key) for key in self.keys()):
            raise DatasetError(
                f"no file that {texts} names is in {folder}. Give the folder that holds the data sets, so that a file "
                f"is found as, for example, {next(iter(table), 'KIT/3/kick_high_left02_poses')}.npz."
            )

    def keys(self) -> Iterator[str]:
        """Paths of the motion files below the folder."""
        for path in files_below(self._folder, ".npz"):
            if not path.removesuffix(".npz").endswith(_SHAPE_FILES):
                yield path

    def read(self, key: str) -> list[ImportedClip]:
        """Clips of one file.

        Raises:
            MotionFileError: the file is damaged or of no SMPL layout.
        """
        take = take_on_floor(load_npz(self._folder / key))
        return clips_of_file(take_name(key), key, take, self._texts_of(key) or FileTexts(), self._longest_s)

    def _texts_of(self, key: str) -> FileTexts | None:
        name = take_name(key)
        # Some unpack each archive into a folder of its name: KIT/KIT/3/...
        return self._texts.get(name) or self._texts.get(name.partition("/")[2])
