"""A small ray caster in NumPy: capsules, cylinders and boxes over a floor with grid and shadow. No display, no GPU.

Every shape has a closed-form intersection with a ray, so shapes are smooth and cover each other exactly as they should.
"""

# N rays, H rows, W columns

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from llamo_ros.viewer.bodies import Body, Part

FloatArray = NDArray[np.floating]

BACKGROUND = np.array([0.965, 0.97, 0.98], np.float32)
_FLOOR_COLOURS = {
    "floor": np.array([0.885, 0.9, 0.92], np.float32),
    "grid": np.array([0.73, 0.76, 0.8], np.float32),
    "path": np.array([0.45, 0.72, 0.6], np.float32),
    "shadow": np.array([0.64, 0.65, 0.67], np.float32),
}
_OUTLINE = 0.45  # brightness along the edges of shapes
_OUTLINE_STEP = 0.05  # a step in depth that counts as an edge, [m]
GRID_SPACING = 0.5  # [m]
_FLOOR_REACH = 1.45  # how far the floor shows around the target, in view heights
# Where light comes from, seen from the camera (right, up, towards the viewer); the shadow falls away from it.
_LIGHT = np.array([-0.45, 0.65, 0.61], np.float32)
_SHADOW_SLANT = 0.25


@dataclass(frozen=True)
class Camera:
    """A perspective camera that looks at a target from a fixed direction.

    Attributes:
        width: Image width, [px].
        height: Image height, [px].
        azimuth: Direction from the target to the camera about z, 0 is +x, [rad].
        elevation: How far above the target the camera is, [rad].
        distance: From the target, [m].
        view_height: Height of what fits into the image at the target's distance, [m].
    """

    width: int
    height: int
    azimuth: float
    elevation: float
    distance: float
    view_height: float

    @cached_property
    def focal(self) -> float:
        """Focal length, [px]."""
        return self.height * self.distance / self.view_height

    @cached_property
    def axes(self) -> FloatArray:
        """Right, up and backward directions of the image in the world, shape (3, 3), one per row."""
        ce, se, ca, sa = np.cos(self.elevation), np.sin(self.elevation), np.cos(self.azimuth), np.sin(self.azimuth)
        back = np.array([ce * ca, ce * sa, se])
        right = np.array([-sa, ca, 0.0])
        return np.stack([right, np.cross(back, right), back])

    @cached_property
    def rays(self) -> FloatArray:
        """Unit directions of all pixels in the world, shape (H, W, 3), float32."""
        x = (np.arange(self.width) + 0.5 - 0.5 * self.width) / self.focal
        y = (0.5 * self.height - np.arange(self.height) - 0.5) / self.focal
        local = np.stack(np.broadcast_arrays(x[None, :], y[:, None], -1.0), axis=-1)
        return ((local / np.linalg.norm(local, axis=-1, keepdims=True)) @ self.axes).astype(np.float32)

    def floor_layers(self, target_height: float) -> dict[str, Image.Image]:
        """Images of the whole floor in each of its colours, fading into the background away from the target."""
        if target_height not in self._layers:
            down = np.minimum(self.rays[..., 2], -1e-3)
            eye = self.position(np.array([0.0, 0.0, target_height]))
            reach = -eye[2] / down
            away = np.hypot(eye[0] + reach * self.rays[..., 0], eye[1] + reach * self.rays[..., 1])
            presence = np.clip(_FLOOR_REACH - 0.1 - away / self.view_height, 0.0, 1.0) * (self.rays[..., 2] < -1e-3)
            self._layers[target_height] = {
                name: _image(BACKGROUND + presence[..., None] * (colour - BACKGROUND))
                for name, colour in _FLOOR_COLOURS.items()
            }
        return self._layers[target_height]

    @cached_property
    def _layers(self) -> dict[float, dict[str, Image.Image]]:
        return {}

    def position(self, target: FloatArray) -> FloatArray:
        """Where the camera stands, shape (3,), [m]."""
        return target + self.distance * self.axes[2]

    def project(self, points: FloatArray, target: FloatArray) -> FloatArray:
        """Pixel coordinates (..., 2) of world points (..., 3), [m]; points must lie in front of the camera."""
        local = (points - self.position(target)) @ self.axes.T
        depth = np.maximum(-local[..., 2], 1e-3)
        return np.stack(
            [
                0.5 * self.width + self.focal * local[..., 0] / depth,
                0.5 * self.height - self.focal * local[..., 1] / depth,
            ],
            axis=-1,
        )


def draw_body(camera: Camera, body: Body, frame: int, target: FloatArray, path: FloatArray) -> Image.Image:
    """One frame of a body on its floor.

    Args:
        camera: How it is seen.
        body: What is seen.
        frame: Index of the frame.
        target: What the camera looks at, shape (3,), [m].
        path: Way of the body over the floor so far, shape (P, 2), [m]; drawn as a line if P >= 2.

    Returns:
        An RGB image of the camera's size.
    """
    picture = np.array(_floor(camera, body, frame, target, path))
    depth = np.full((camera.height, camera.width), np.inf, np.float32)
    eye = camera.position(target)
    light = (_LIGHT @ camera.axes).astype(np.float32)
    for part in body.parts:
        rotation = body.rotations[frame, part.link] @ part.rotation
        centre = body.positions[frame, part.link] + body.rotations[frame, part.link] @ part.centre
        _draw_part(camera, part, rotation, centre, eye, target, light, picture, depth)
    _darken_edges(picture, depth)
    return Image.fromarray(picture)


def _floor(camera: Camera, body: Body, frame: int, target: FloatArray, path: FloatArray) -> Image.Image:
    """Background with a grid that stands still in the world, the way so far, and the shadow."""
    layers = camera.floor_layers(float(target[2]))
    masks = {name: Image.new("L", (camera.width, camera.height), 0) for name in ("grid", "path", "shadow")}
    reach = _FLOOR_REACH * camera.view_height
    for axis in (0, 1):
        first, last = (int(np.floor((target[axis] + side * reach) / GRID_SPACING)) for side in (-1, 1))
        ends = np.zeros((last - first + 1, 2, 3))
        ends[:, :, axis] = GRID_SPACING * np.arange(first, last + 1)[:, None]
        ends[:, :, 1 - axis] = target[1 - axis] + np.array([-reach, reach])
        for start, end in camera.project(ends, target):
            ImageDraw.Draw(masks["grid"]).line([tuple(start), tuple(end)], fill=255, width=2)
    if len(path) >= 2:
        points = camera.project(np.column_stack([path, np.zeros(len(path))]), target)
        width = max(3, camera.height // 90)
        ImageDraw.Draw(masks["path"]).line([tuple(point) for point in points], fill=255, width=width, joint="curve")
    for part in body.parts:
        _draw_shadow(ImageDraw.Draw(masks["shadow"]), camera, part, body, frame, target)
    picture = layers["floor"].copy()
    for name, mask in masks.items():
        picture.paste(layers[name], mask=mask)
    return picture


def _image(colours: FloatArray) -> Image.Image:
    return Image.fromarray((255.0 * colours.clip(0.0, 1.0) + 0.5).astype(np.uint8))


def _draw_shadow(
    draw: ImageDraw.ImageDraw, camera: Camera, part: Part, body: Body, frame: int, target: FloatArray
) -> None:
    rotation = body.rotations[frame, part.link]
    axis = rotation @ part.rotation[:, 2] * 0.5 * part.size[2]
    centre = body.positions[frame, part.link] + rotation @ part.centre
    radii = part.size[:2] if part.kind != "box" else (0.4 * min(part.size[:2]),) * 2
    slant = -_SHADOW_SLANT * (_LIGHT[0] * camera.axes[0, :2] + 0.3 * camera.axes[2, :2])
    rim = np.linspace(0.0, 2.0 * np.pi, 13)[:-1]
    rings = []
    for end, radius in zip((centre - axis, centre + axis), radii, strict=True):
        middle = end[:2] + slant * max(end[2], 0.0)
        rings.append(middle + radius * np.stack([np.cos(rim), np.sin(rim)], axis=1))
    points = np.concatenate(rings)
    hull = _hull(camera.project(np.column_stack([points, np.zeros(len(points))]), target))
    draw.polygon([tuple(point) for point in hull], fill=255)


def _hull(points: FloatArray) -> list[tuple[float, float]]:
    """Convex hull of points (P, 2) in order, by Andrew's monotone chain."""
    ordered = sorted(map(tuple, points.tolist()))
    chains: list[list[tuple[float, float]]] = []
    for sequence in (ordered, ordered[::-1]):
        chain: list[tuple[float, float]] = []
        for point in sequence:
            while len(chain) >= 2:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (point[1] - ay) - (by - ay) * (point[0] - ax) > 0:
                    break
                chain.pop()
            chain.append(point)
        chains.append(chain[:-1])
    return chains[0] + chains[1]


def _draw_part(
    camera: Camera,
    part: Part,
    rotation: FloatArray,
    centre: FloatArray,
    eye: FloatArray,
    target: FloatArray,
    light: FloatArray,
    picture: NDArray[np.uint8],
    depth: FloatArray,
) -> None:
    first, second, third = part.size
    half = np.array([first, second, third]) / 2
    if part.kind != "box":
        widest = max(first, second)
        half = np.array([widest, widest, 0.5 * third + (widest if part.kind == "capsule" else 0.0)])
    corners = np.array(np.meshgrid(*np.stack([-half, half], axis=1), indexing="ij")).reshape(3, -1).T
    pixels = camera.project(centre + corners @ rotation.T, target)
    left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(pixels.max(axis=0)).astype(int), [camera.width, camera.height])
    if left >= right or top >= bottom:
        return
    window = np.s_[top:bottom, left:right]
    rays = camera.rays[window].reshape(-1, 3) @ rotation.astype(np.float32)
    origin = ((eye - centre) @ rotation).astype(np.float32)
    distance, normals = INTERSECTIONS[part.kind](origin, rays, part.size)
    distance = distance.reshape(bottom - top, right - left)
    nearer = distance < depth[window]
    if not nearer.any():
        return
    normals = normals.reshape(*distance.shape, 3)[nearer] @ rotation.T.astype(np.float32)
    lit = 0.5 + 0.5 * (normals @ light)  # half-Lambert: the far side keeps its form
    shade = 0.42 + 0.68 * lit * lit
    gloss = 0.16 * np.clip(lit - 0.9, 0.0, 1.0) / 0.1
    depth[window][nearer] = distance[nearer]
    colours = np.array(part.colour, np.float32) * shade[:, None] + gloss[:, None]
    picture[window][nearer] = (255.0 * np.minimum(colours, 1.0)).astype(np.uint8)


def _darken_edges(picture: NDArray[np.uint8], depth: FloatArray) -> None:
    """A thin outline where depth jumps, on the nearer side, so that an arm before the trunk stands out."""
    finite = np.minimum(depth, 1e3)
    edge = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        step = np.diff(finite, axis=axis)
        ahead = [slice(None)] * 2
        behind = [slice(None)] * 2
        ahead[axis], behind[axis] = slice(None, -1), slice(1, None)
        edge[tuple(ahead)] |= step > _OUTLINE_STEP
        edge[tuple(behind)] |= step < -_OUTLINE_STEP
    picture[edge] = (_OUTLINE * picture[edge]).astype(np.uint8)


def _capsule_hits(o: FloatArray, d: FloatArray, size: tuple[float, float, float]) -> tuple[FloatArray, FloatArray]:
    """Distance (N,), infinite where there is no hit, and normals (N, 3): a cone tangent to the spheres at its ends."""
    start_radius, end_radius, length = size
    start = o + np.array([0.0, 0.0, 0.5 * length], np.float32)  # the eye, seen from each end
    end = o - np.array([0.0, 0.0, 0.5 * length], np.float32)
    hit = np.full(len(d), np.inf, np.float32)
    normals = np.zeros_like(d)
    for centre, radius in ((start, start_radius), (end, end_radius)):
        along = d @ centre
        under_root = along * along - centre @ centre + radius * radius
        t = -along - np.sqrt(np.maximum(under_root, 0.0))
        nearer = (under_root > 0) & (t < hit) & (t > 0)
        hit[nearer] = t[nearer]
        normals[nearer] = (centre + t[nearer, None] * d[nearer]) / radius
    taper = start_radius - end_radius
    sine2 = length * length - taper * taper
    if sine2 <= 0:  # one ball holds the other
        return hit, normals
    # Side: points p with |p x axis| at the tangent line's distance, a quadratic in t.
    along_axis, rate = length * start[2], length * d[:, 2]
    a = sine2 - rate * rate
    b = sine2 * (d @ start) - along_axis * rate + rate * taper * start_radius
    c = sine2 * (start @ start) - along_axis**2 + 2 * along_axis * taper * start_radius - length**2 * start_radius**2
    under_root = b * b - c * a
    a = np.where(np.abs(a) < 1e-9, 1e-9, a)
    t = (-np.sqrt(np.maximum(under_root, 0.0)) - b) / a
    y = along_axis - start_radius * taper + t * rate
    side = (under_root > 0) & (y > 0) & (y < sine2) & (t > 0) & (t < hit)
    hit[side] = t[side]
    normal = sine2 * (start + t[side, None] * d[side])
    normal[:, 2] -= length * y[side]
    normals[side] = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    return hit, normals


def _cylinder_hits(o: FloatArray, d: FloatArray, size: tuple[float, float, float]) -> tuple[FloatArray, FloatArray]:
    radius, _, length = size
    a = np.maximum(d[:, 0] ** 2 + d[:, 1] ** 2, 1e-12)
    b = d[:, :2] @ o[:2]
    under_root = b * b - a * (o[:2] @ o[:2] - radius * radius)
    t = (-b - np.sqrt(np.maximum(under_root, 0.0))) / a
    side = (under_root > 0) & (np.abs(o[2] + t * d[:, 2]) <= 0.5 * length) & (t > 0)
    hit = np.where(side, t, np.inf).astype(np.float32)
    normals = np.zeros_like(d)
    normals[side, :2] = (o[:2] + t[side, None] * d[side, :2]) / radius
    rising = np.where(np.abs(d[:, 2]) < 1e-9, 1e-9, d[:, 2])
    lid = -np.sign(rising)
    t = (0.5 * length * lid - o[2]) / rising
    x, y = o[0] + t * d[:, 0], o[1] + t * d[:, 1]
    top = (x * x + y * y <= radius * radius) & (t > 0) & (t < hit)
    hit[top] = t[top]
    normals[top] = 0.0
    normals[top, 2] = lid[top]
    return hit, normals


def _box_hits(o: FloatArray, d: FloatArray, size: tuple[float, float, float]) -> tuple[FloatArray, FloatArray]:
    half = 0.5 * np.array(size, np.float32)
    d = np.where(np.abs(d) < 1e-9, np.float32(1e-9), d)
    enter = (-half * np.sign(d) - o) / d
    leave = (half * np.sign(d) - o) / d
    face = enter.argmax(axis=1)
    t = enter.max(axis=1)
    inside = (t < leave.min(axis=1)) & (t > 0)
    normals = np.zeros_like(d)
    rows = np.arange(len(d))
    normals[rows, face] = -np.sign(d[rows, face])
    return np.where(inside, t, np.inf).astype(np.float32), normals


INTERSECTIONS = {"capsule": _capsule_hits, "cylinder": _cylinder_hits, "box": _box_hits}
