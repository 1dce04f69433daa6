"""A small source folder in the layout of the shared data, with made-up motion, so that training is tested anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.training.pack import pack_data

CAPTIONS = {
    "walk": "a person walks forward with both arms swinging",
    "wave-right-hand": "a person waves the right hand high",
    "bow": "a person takes a deep bow",
}


@pytest.fixture(scope="session")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of motion data and a text file; a dozen clips of 3 s."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    rows, rotvec, trans = [], [], []
    start = 0
    for number in range(12):
        kind, split = ("h3d", "bandai")[number % 2], "val" if number >= 8 else "train"
        content = list(CAPTIONS)[number % 3]
        length = int(rng.integers(80, 100))
        time = np.arange(length)[:, None, None] / 30
        angles = 0.4 * np.sin(2 * time + rng.uniform(0, 6, (1, 22, 3)))
        rotvec.append(np.rint(angles * 32767 / np.pi).astype(np.int16))
        trans.append(np.column_stack([0 * time[:, 0], 0.9 + 0 * time[:, 0], 0.8 * time[:, 0]]).astype(np.float32))
        caption = {"text": CAPTIONS[content], "start": None, "end": None}
        row = {"id": f"{kind}_{number}", "kind": kind, "split": split, "fps": 30, "shard": "clips.npz", "start": start}
        row |= {"length": length, "captions": [caption], "licence": "made up", "style": "normal"}
        rows.append(row | ({"content": content} if kind == "bandai" else {}))
        start += length
    np.savez(folder / "clips.npz", rotvec_i16=np.concatenate(rotvec), trans=np.concatenate(trans))
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [{"split": s, "captions": [{"text": text}]} for s in ("train", "val") for text in CAPTIONS.values()]
    (folder / "texts_humanml3d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    return folder


@pytest.fixture(scope="session")
def packed_folder(source_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source folder, packed."""
    folder = tmp_path_factory.mktemp("packed")
    pack_data(source_folder, folder)
    return folder
