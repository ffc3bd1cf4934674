"""data/prepared, which stage 1 writes and the others read.

splits.py  photos, labels and statistics of a split
"""
