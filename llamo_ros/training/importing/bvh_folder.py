"""A folder of BVH files with a CSV table of captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llamo_ros.core.errors import DatasetError, ParameterError
from llamo_ros.motion.bvh import import_bvh
from llamo_ros.motion.joint_map import load_joint_map
from llamo_ros.training.importing.takes import ImportedClip, Rejected, clips_of_file
from llamo_ros.training.importing.texts import FileTexts, file_key, read_texts
from llamo_ros.training.importing.walking import files_below


class BvhFolder:
    """BVH files of one rig, or of rigs that are told apart by their joint names.

    Args:
        folder: Folder with the files; any depth.
        captions: CSV table with a row for each caption (see :mod:`~llamo_ros.training.importing.texts`); files that it
            does not name are imported without captions. A file that it names and that is absent is reported.
        joint_map: Name of a joint map or path of your own YAML file; None chooses for each file by the joint names.
        longest_s: Takes without captions are cut into equal pieces of at most this, [s].

    Raises:
        DatasetError: the folder or the table cannot be read, or no file of the table is in the folder.
        MotionFileError: there is no such joint map.
        ParameterError: ``longest_s`` is not positive.
    """

    origin = "BVH folder"
    notes = ("Every rig is scaled to smpl22's leg length; fingers and face are left out.",)

    def __init__(
        self, folder: str | Path, captions: str | Path, joint_map: str | Path | None = None, longest_s: float = 20.0
    ) -> None:
        if not longest_s > 0:
            raise ParameterError(f"longest_s is {longest_s}, expected a positive number of seconds.")
        if joint_map is not None:
            load_joint_map(joint_map)  # a wrong name is told now, not once for each file
        self._folder, self._joint_map, self._longest_s = Path(folder), joint_map, longest_s
        self._texts = read_texts(captions)
        self._absent = set(self._texts)
        for path in files_below(folder, ".bvh"):
            self._absent.discard(file_key(path))
        if len(self._absent) == len(self._texts):
            raise DatasetError(
                f"no file that {captions} names is in {folder}. Column 'file' has paths inside that folder, for "
                "example walks/walk_01.bvh."
            )

    def keys(self) -> Iterator[str]:
        """Paths of the files below the folder, then those that only the table names."""
        yield from files_below(self._folder, ".bvh")
        yield from sorted(self._absent)

    def read(self, key: str) -> list[ImportedClip | Rejected]:
        """Clips of one file.

        Raises:
            MotionFileError: the file is damaged, or the joint map does not fit.
        """
        if key in self._absent:
            return [Rejected(key, key, "missing file", "the table of captions names it, the folder does not have it")]
        take = import_bvh(self._folder / key, self._joint_map)
        name = file_key(key)
        return [*clips_of_file(name, key, take, self._texts.get(name) or FileTexts(), self._longest_s)]
