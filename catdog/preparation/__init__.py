"""Stage 1: convert the photos to arrays.

photos.py         one photo file: open, validate, decode, resize to a square
layout.py         the rule that gives each file its class and its split, from the paths
class_folders.py  the photo files of each class in data/raw
split.py          the rule that assigns a photo to the training, validation or test split
prepare.py        the stage: refuse invalid files and duplicates, write the arrays
"""
