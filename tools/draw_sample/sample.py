"""One picture of a class, and the folder of pictures that is the sample."""

import random
import shutil
from pathlib import Path

from PIL import Image, ImageOps

from catdog.errors import CatdogError
from catdog.support.process_pool import process_pool, usable_cores
from tools.draw_sample.anatomy import KINDS, random_animal
from tools.draw_sample.camera import aim, blur_and_noise, expose
from tools.draw_sample.coat import random_coat
from tools.draw_sample.pen import INK
from tools.draw_sample.poses import POSES, close_up
from tools.draw_sample.scenes import BACKGROUNDS, add_objects, gradient, occlude

SUPERSAMPLING = 4  # pictures are drawn larger and reduced: Pillow's polygons have hard edges
SEEDS_PER_SAMPLE = 1_000_000  # picture i of sample s has the seed s * SEEDS_PER_SAMPLE + i
JPEG_QUALITY = 85


def draw(class_name: str, seed: int, side: int = 112) -> Image.Image:
    """Return an RGB picture of a cat or a dog, `side` pixels square, determined by class and seed.

    Raises CatdogError for another class.
    """
    if class_name not in KINDS:
        raise CatdogError(f"class {class_name!r}: cannot be drawn; choose {' or '.join(KINDS)}")
    # Each call uses `rng`, so changing their order changes the picture of a seed.
    rng = _generator(class_name, seed)
    image = gradient(side * SUPERSAMPLING, rng)
    view = aim(image, rng)
    rng.choice(BACKGROUNDS)(view, rng)
    add_objects(view, rng, most=3, y=0.75)
    (pose,) = rng.choices([pose for pose, _ in POSES], [weight for _, weight in POSES])
    stage = view.at(0.5, 0.54, rng.uniform(0.8, 0.95), rng.gauss(0, 4))
    if pose is not close_up:  # the shadow on the floor
        stage.oval(0, 0.5, 0.42, 0.06, INK, alpha=0.3)
    pose(stage, random_animal(KINDS[class_name], rng), random_coat(stage, rng), rng)
    add_objects(view, rng, most=1, y=0.98)
    occlude(view, rng)
    image = expose(image.reduce(SUPERSAMPLING), rng)
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    return blur_and_noise(image, rng)


def _generator(class_name: str, seed: int) -> random.Random:
    """Return the random generator of one picture; no picture depends on another."""
    return random.Random(f"{class_name} {seed}")


def draw_sample(root: Path, count: int = 800, seed: int = 1) -> None:
    """Write `count` pictures, half of them dogs, as root/cat/cat_0001.jpg, root/dog/dog_0001.jpg, …

    `root` is created atomically. Picture i does not depend on `count`. Raises CatdogError
    if `root` exists, or if `count` or `seed` is invalid.
    """
    if root.exists() or root.is_symlink():
        raise CatdogError(f"{root}: already exists; remove it or choose another folder")
    if count < 2 or count % 2:
        raise CatdogError(f"--count {count}: invalid value; must be an even number of at least 2")
    if seed < 0:
        raise CatdogError(f"--seed {seed}: invalid value; must be at least 0")
    temporary = root.with_name(f".{root.name}.tmp")
    jobs = [(temporary, name, seed, i) for name in KINDS for i in range(1, count // 2 + 1)]
    shutil.rmtree(temporary, ignore_errors=True)  # left over from a killed run
    try:
        for name in KINDS:
            (temporary / name).mkdir(parents=True)
        with process_pool(usable_cores()) as pool:
            list(pool.map(save_picture, *zip(*jobs, strict=True), chunksize=16))
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_picture(root: Path, class_name: str, seed: int, index: int) -> Path:
    """Write picture `index` (from 1) of the sample `seed` into root/class_name; return its path."""
    path = root / class_name / f"{class_name}_{index:04}.jpg"
    draw(class_name, seed * SEEDS_PER_SAMPLE + index).save(path, quality=JPEG_QUALITY)
    return path
