"""What distinguishes a cat from a dog: the only part of a picture that depends on its class."""

import random
from dataclasses import dataclass, fields, replace
from typing import Literal

from tools.draw_sample.pen import INK, Colour


@dataclass(frozen=True)
class Anatomy:
    """Measures of one animal: of the head in half head heights, of the body in body heights."""

    ears: Literal["pointed", "folded", "floppy"]
    ear_length: float
    ear_width: float
    head_width: float
    muzzle: float
    """0: flat face, 1: long snout"""
    nose: float
    eye: float
    legs: float
    girth: float
    tail_length: float
    tail_width: float
    slit_pupils: bool = False
    pink_nose: bool = False
    whiskers: bool = False
    tongue: bool = False
    iris: Colour = INK


@dataclass(frozen=True)
class Kind:
    """A class: its equally likely breeds, and the probabilities of the traits they share."""

    breeds: tuple[Anatomy, ...]
    irises: tuple[Colour, ...]
    slit_pupils: float
    pink_nose: float
    whiskers: float
    tongue: float


GREEN, AMBER, BLUE, BROWN = (136, 168, 88), (216, 164, 60), (120, 168, 204), (98, 62, 38)
# The numbers of an Anatomy: ear length, ear width, head width, muzzle, nose, eye, legs, girth, tail
# length, tail width. As in life, some dogs have a cat's ears and some cats a dog's.
KINDS = {
    "cat": Kind(
        breeds=(
            Anatomy("pointed", 0.80, 0.62, 1.10, 0.15, 0.12, 0.25, 0.30, 0.15, 0.62, 0.060),
            Anatomy("pointed", 0.75, 0.60, 1.08, 0.22, 0.13, 0.23, 0.30, 0.17, 0.58, 0.065),
            Anatomy("pointed", 0.85, 0.64, 1.14, 0.12, 0.11, 0.25, 0.32, 0.16, 0.64, 0.080),
            Anatomy("pointed", 0.95, 0.60, 0.96, 0.32, 0.12, 0.22, 0.34, 0.13, 0.66, 0.045),
            Anatomy("pointed", 0.58, 0.52, 1.20, 0.05, 0.12, 0.26, 0.24, 0.19, 0.46, 0.100),
            Anatomy("folded", 0.55, 0.55, 1.14, 0.12, 0.13, 0.26, 0.27, 0.17, 0.55, 0.070),
        ),
        irises=(GREEN, GREEN, GREEN, AMBER, AMBER, AMBER, BLUE, BROWN),
        slit_pupils=0.75,
        pink_nose=0.75,
        whiskers=0.85,
        tongue=0.02,
    ),
    "dog": Kind(
        breeds=(
            Anatomy("floppy", 1.00, 0.50, 0.96, 0.70, 0.22, 0.16, 0.34, 0.18, 0.44, 0.085),
            Anatomy("floppy", 0.90, 0.50, 0.90, 0.80, 0.23, 0.15, 0.37, 0.17, 0.46, 0.075),
            Anatomy("floppy", 1.30, 0.55, 0.92, 0.60, 0.20, 0.17, 0.28, 0.17, 0.34, 0.070),
            Anatomy("floppy", 0.75, 0.50, 1.08, 0.30, 0.20, 0.20, 0.27, 0.19, 0.30, 0.075),
            Anatomy("folded", 0.70, 0.55, 0.96, 0.60, 0.19, 0.17, 0.32, 0.16, 0.28, 0.065),
            Anatomy("pointed", 0.82, 0.50, 1.00, 0.65, 0.19, 0.17, 0.36, 0.17, 0.42, 0.120),
        ),
        irises=(BROWN, BROWN, BROWN, BROWN, BROWN, BROWN, AMBER, BLUE),
        slit_pupils=0.0,
        pink_nose=0.12,
        whiskers=0.10,
        tongue=0.35,
    ),
}


def random_animal(kind: Kind, rng: random.Random, variation: float = 0.12) -> Anatomy:
    """Return an animal of a random breed, each measure varied independently."""
    breed = rng.choice(kind.breeds)
    measures = {
        field.name: getattr(breed, field.name) * rng.uniform(1 - variation, 1 + variation)
        for field in fields(breed)
        if field.type is float
    }
    return replace(
        breed,
        **measures,
        slit_pupils=rng.random() < kind.slit_pupils,
        pink_nose=rng.random() < kind.pink_nose,
        whiskers=rng.random() < kind.whiskers,
        tongue=rng.random() < kind.tongue,
        iris=rng.choice(kind.irises),
    )
