"""Rendered clips with known truth: captions, masks, optical flow, and what an edit of the clip should look like.

One or two emoji move over a background. The caption says what is seen, in a small closed grammar, so the same motion
can be rendered with another object, style or colour: that is the true result of an edit.

    scene, motion = random_scene(random.Random(0)), random_motion(random.Random(0))
    clip = render(scene, motion, frames=8)
    truth = render(scene.with_thing(object="car"), motion, frames=8)
"""

from .motion import Motion, random_motion
from .rendering import Clip, render
from .scene import Background, Scene, Thing, random_scene

__all__ = ["Background", "Clip", "Motion", "Scene", "Thing", "random_motion", "random_scene", "render"]
