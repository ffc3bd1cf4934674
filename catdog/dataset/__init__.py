"""data/prepared, which stage 1 writes and the other stages read.

prepared.py  its format: photos and labels of a split, statistics of the training set
"""
