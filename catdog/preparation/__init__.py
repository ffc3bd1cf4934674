"""Stage 1: photos become arrays.

photos.py   one photo file: open, check, decode, resize to a square
prepare.py  the stage: split by content, write the arrays
"""
