"""Stage 1: convert the photos to arrays.

photos.py         one photo file: open, validate, decode, resize to a square
photo_formats.py  the supported formats, recognized by content, and names of others
photo_limits.py   limits of bytes, pixels and structure, checked before decoding
png_chunks.py     PNG files without the chunks that do not affect the pixels
colour.py         images of any mode as 8-bit sRGB: ICC profiles, transparency, 16 bits
photo_inputs.py   the photos to predict: files, folders, links, pipes
layout.py         the rule that gives each file its class and its split, from the paths
class_folders.py  the photo files of each class in data/raw
duplicates.py     refuse the copies of a photo
split.py          the rules that assign each photo to the training, validation or test split
arrays.py         write the arrays of the splits, one photo at a time
prepare.py        the stage: refuse invalid files and duplicates, write the arrays
"""
