"""Stage 1, prepare: decode the photos in data/raw and write them as arrays.

photos.py   find photo files; decode and validate one; resize it to a square
prepare.py  the stage: split by content hash, write arrays and statistics
"""
