"""The sample: pictures of cats and dogs, drawn by a program.

Both classes share coats, poses, backgrounds, objects and camera; only the anatomy differs. So a
network has to learn the shapes of ears, muzzles, eyes and tails: colours carry no information about
the class. The bytes of a picture depend only on its class, its seed and the version of Pillow.

sample.py   one picture, and the folder of pictures
anatomy.py  what distinguishes a cat from a dog
coat.py     fur: colours and patterns
head.py     heads
poses.py    bodies
scenes.py   backgrounds and objects
camera.py   viewpoint, light, focus and noise
pen.py      smooth shapes in a movable coordinate frame

`python -m tools.draw_sample FOLDER` draws the sample that data/raw.dvc describes.
"""

from tools.draw_sample.anatomy import KINDS
from tools.draw_sample.sample import draw, draw_sample

__all__ = ["KINDS", "draw", "draw_sample"]
