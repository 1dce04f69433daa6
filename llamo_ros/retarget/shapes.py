"""How big the links of a URDF are: corners of its simple shapes, and of the boxes that have the links' inertia."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.retarget.robot import RobotModel, rotation_from_rpy

FloatArray = NDArray[np.float64]

_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)


@dataclass(frozen=True)
class Solid:
    """A box that stands for a shape.

    Attributes:
        source: ``collision``, ``visual`` or ``inertia``.
        centre: Middle in the frame of the body, shape (3,), [m].
        rotation: Orientation in that frame, shape (3, 3).
        half: Half of its edges, shape (3,), [m].
    """

    source: str
    centre: FloatArray
    rotation: FloatArray
    half: FloatArray

    @property
    def corners(self) -> FloatArray:
        """Its corners in the frame of the body, shape (8, 3), [m]."""
        return self.centre + (_CORNERS * self.half) @ self.rotation.T


def body_solids(model: RobotModel, description: str) -> dict[int, list[Solid]]:
    """The solids of each body: of the link that a movable joint carries, and of all links fixed to it.

    Meshes are not read. Masses are often known where shapes are meshes, and a homogeneous box of the same inertia is
    about as large as the link.
    """
    zero = model.link_poses(np.zeros((1, model.joint_count)))
    solids: dict[int, list[Solid]] = {}
    for link in ElementTree.fromstring(description).findall("link"):
        if link.get("name") not in model.link_names:
            continue
        index = body = model.link_index(link.get("name", ""))
        while body and model.link_joints[body] < 0:
            body = int(model.parents[body])
        turn = zero.rotations[0, body].T @ zero.rotations[0, index]
        place = zero.rotations[0, body].T @ (zero.positions[0, index] - zero.positions[0, body])
        for solid in _link_solids(link):
            moved = Solid(solid.source, place + turn @ solid.centre, turn @ solid.rotation, solid.half)
            solids.setdefault(body, []).append(moved)
    return solids


def corners_of(solids: list[Solid], *sources: str) -> FloatArray:
    """Corners of the solids of the first source that has any, shape (N, 3), [m]; N = 0 if none has."""
    for source in sources:
        found = [solid.corners for solid in solids if solid.source == source]
        if found:
            return np.concatenate(found)
    return np.empty((0, 3))


def _link_solids(link: ElementTree.Element) -> list[Solid]:
    found = []
    for source in ("collision", "visual"):
        for element in link.findall(source):
            half = _half_edges(element.find("geometry"))
            if half is not None:
                found.append(Solid(source, *_origin(element), half))
    inertial = link.find("inertial")
    half = None if inertial is None else _inertia_box(inertial)
    if half is not None:
        found.append(Solid("inertia", *_origin(inertial), half))
    return found


def _origin(element: ElementTree.Element) -> tuple[FloatArray, FloatArray]:
    origin = element.find("origin")
    attributes = {} if origin is None else origin.attrib
    return np.array(_floats(attributes.get("xyz"), 3)), rotation_from_rpy(*_floats(attributes.get("rpy"), 3))


def _half_edges(geometry: ElementTree.Element | None) -> FloatArray | None:
    if geometry is None:
        return None
    if (box := geometry.find("box")) is not None:
        return 0.5 * np.array(_floats(box.get("size"), 3))
    if (cylinder := geometry.find("cylinder")) is not None:
        radius, length = _floats(cylinder.get("radius"), 1)[0], _floats(cylinder.get("length"), 1)[0]
        return np.array([radius, radius, 0.5 * length])
    if (sphere := geometry.find("sphere")) is not None:
        return np.full(3, _floats(sphere.get("radius"), 1)[0])
    return None


def _inertia_box(inertial: ElementTree.Element) -> FloatArray | None:
    mass, inertia = inertial.find("mass"), inertial.find("inertia")
    if mass is None or inertia is None:
        return None
    (weight,) = _floats(mass.get("value"), 1)
    if weight < 0.05:  # sensors and frames
        return None
    x, y, z = (_floats(inertia.get(name), 1)[0] for name in ("ixx", "iyy", "izz"))
    squares = 1.5 / weight * np.array([y + z - x, x + z - y, x + y - z])
    return np.sqrt(np.maximum(squares, 0.0))


def _floats(text: str | None, count: int) -> list[float]:
    try:
        values = [float(word) for word in (text or "").split()]
    except ValueError:
        values = []
    return values if len(values) == count and np.isfinite(values).all() else [0.0] * count
