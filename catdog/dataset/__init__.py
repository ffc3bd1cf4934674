"""The prepared dataset in data/prepared: written by stage 1, read by the other stages.

splits.py  read the photos, labels and pixel statistics of a split
"""
