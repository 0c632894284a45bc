"""From scene and motion to frames, masks and optical flow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .motion import Motion, Pose
from .scene import Background, Scene
from .sprites import sprite
from .vocabulary import COLOURS

SIDE = 128
# Backgrounds are paler than things, in two tones: how much white is mixed into their colour.
PALE, PALER = 0.45, 0.70
PERIOD = 1 / 5
STRIPE_ANGLE = math.radians(30)
SOFTNESS = 0.02


@dataclass(frozen=True)
class Clip:
    """N frames of H x W pixels and what is known of them.

    Attributes:
        scene, motion: what was rendered.
        frames: [N, H, W, 3] in [0, 1].
        masks: [N, H, W] bool, where a thing is seen.
        forward: [N - 1, H, W, 2], exact flow in pixels (x, y): where each pixel of frame n goes in frame n + 1.
        backward: [N - 1, H, W, 2], where each pixel of frame n + 1 comes from in frame n.
        forward_seen, backward_seen: [N - 1, H, W] bool, whether that place is inside the frame and not occluded.
    """

    scene: Scene
    motion: Motion
    frames: Tensor
    masks: Tensor
    forward: Tensor
    backward: Tensor
    forward_seen: Tensor
    backward_seen: Tensor


def render(scene: Scene, motion: Motion, frames: int, side: int = SIDE) -> Clip:
    """A clip of `frames` frames, evenly spaced from the start of the motion to its end."""
    poses, pans = places(scene, motion, [n / max(1, frames - 1) for n in range(frames)])
    images, layers = draw(scene, poses, pans, side)
    # from pixels of the frame to pixels of the background at rest
    to_background = torch.eye(3).repeat(frames, 1, 1)
    to_background[:, :2, 2] = -pans * side
    to_things = torch.stack([torch.stack([to_unit(pose, side) for pose in path]) for path in poses])
    moves = torch.cat([to_background[None], to_things])  # [layers, N, 3, 3]
    forward, forward_seen = _flow(layers[:-1], layers[1:], moves[:, :-1], moves[:, 1:])
    backward, backward_seen = _flow(layers[1:], layers[:-1], moves[:, 1:], moves[:, :-1])
    return Clip(scene, motion, images.movedim(1, -1), layers > 0, forward, backward, forward_seen, backward_seen)


def render_frame(scene: Scene, motion: Motion, time: float, side: int = SIDE) -> Tensor:
    """One frame, [3, side, side], at a time in [0, 1]."""
    return draw(scene, *places(scene, motion, [time]), side)[0][0]


def places(scene: Scene, motion: Motion, times: list[float]) -> tuple[list[list[Pose]], Tensor]:
    """The poses of each thing at these times, and how far the background has moved, [N, 2] in shares of the side."""
    poses = [[path.at(time) for time in times] for path in motion.paths[: len(scene.things)]]
    return poses, torch.tensor([[time * motion.pan[0], time * motion.pan[1]] for time in times])


def draw(scene: Scene, poses: list[list[Pose]], pans: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Pictures [N, 3, side, side] and the number of the layer on top, [N, side, side]: 0 background, i + 1 thing i."""
    image = background(scene.background, pans, side)
    top = torch.zeros(len(pans), side, side, dtype=torch.long)
    for number, (thing, path) in enumerate(zip(scene.things, poses, strict=True)):
        picture = sprite(thing.object, thing.style, thing.colour).expand(len(path), -1, -1, -1)
        grid = apply(torch.stack([to_unit(pose, side) for pose in path]), pixel_centres(side))
        layer = grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        image = layer[:, :3] + (1 - layer[:, 3:]) * image
        top[layer[:, 3] > 0.5] = number + 1
    return image.clamp(0, 1), top


def background(what: Background, pans: Tensor, side: int) -> Tensor:
    """A background that has moved by `pans` [N, 2], shares of the side; [N, 3, side, side]."""
    x, y = ((pixel_centres(side) / side)[None] - pans[:, None, None]).unbind(dim=-1)
    if what.texture == "plain":
        share = torch.zeros_like(x)
    elif what.texture == "gradient":
        share = (0.5 + 0.6 * (y - 0.5)).clamp(0, 1)
    elif what.texture == "striped":
        share = _wave(x * math.cos(STRIPE_ANGLE) + y * math.sin(STRIPE_ANGLE))
    else:
        first, second = _wave(x), _wave(y)
        share = first + second - 2 * first * second
    tone = torch.tensor(COLOURS[what.colour]).view(1, 3, 1, 1)
    return tone + (1 - tone) * (PALE + (PALER - PALE) * share[:, None])


def pixel_centres(side: int) -> Tensor:
    """[side, side, 2]: x and y of each pixel's centre, in pixels from the frame's corner."""
    place = torch.arange(side) + 0.5
    y, x = torch.meshgrid(place, place, indexing="ij")
    return torch.stack([x, y], dim=-1)


def to_unit(pose: Pose, side: int) -> Tensor:
    """[3, 3]: from pixels of the frame to the picture's own coordinates, which run from -1 to 1."""
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    scale = 2 / (pose.size * side)
    turn = torch.tensor([[cos, sin], [-sin, cos]]) * scale
    shift = -turn @ torch.tensor([pose.x * side, pose.y * side])
    return torch.cat([torch.cat([turn, shift[:, None]], dim=1), torch.tensor([[0.0, 0.0, 1.0]])])


def apply(matrices: Tensor, points: Tensor) -> Tensor:
    """Affine maps [N, 3, 3] of points [..., 2]; [N, ..., 2]."""
    flat = points.reshape(-1, 2)
    moved = flat @ matrices[:, :2, :2].transpose(1, 2) + matrices[:, None, :2, 2]
    return moved.view(len(matrices), *points.shape)


def _wave(phase: Tensor) -> Tensor:
    """A square wave of the period PERIOD with soft edges, in [0, 1]."""
    return torch.sigmoid(torch.sin(2 * math.pi * phase / PERIOD) * PERIOD / (2 * math.pi * SOFTNESS) * 4)


def _flow(layers: Tensor, other: Tensor, here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Displacement [n, H, W, 2] of each pixel to the other frame, and whether it is seen there [n, H, W].

    layers, other: [n, H, W] layer on top. here, there: [layers, n, 3, 3], from pixels to each layer's own coordinates.
    """
    side = layers.shape[-1]
    centres = pixel_centres(side)
    candidates = torch.stack([apply(torch.linalg.solve(b, a), centres) for a, b in zip(here, there, strict=True)])
    index = layers[None, ..., None].expand(1, *layers.shape, 2)
    target = candidates.gather(0, index)[0]  # [n, H, W, 2]
    place = target.floor().long()
    inside = ((target >= 0) & (target < side)).all(dim=-1)
    x, y = place.clamp(0, side - 1).unbind(dim=-1)
    row = torch.arange(len(layers))[:, None, None]
    return target - centres, inside & (other[row, y, x] == layers)


def as_bytes(pictures: Tensor) -> Tensor:
    """Values in [0, 1] as uint8, rounded."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
