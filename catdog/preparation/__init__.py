"""Stage 1: convert the photos to arrays.

photos.py         one photo file: open, validate, decode, resize to a square
class_folders.py  the photo files of each class
duplicates.py     refuse the copies of a photo
split.py          the rules that assign each photo to the training, validation or test split
arrays.py         write the arrays of the splits, one photo at a time
prepare.py        the stage: refuse invalid files and duplicates, write the arrays
"""
