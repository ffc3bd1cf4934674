"""A model: its network, its inputs, its device, and its files.

networks.py    the residual network and the seed's
pretrained.py  torchvision's classifiers and their weights
devices.py     which device, which precision, and why
inputs.py      resize and normalize, the same in training, evaluation and predict
inference.py   logits and probabilities of stored photos
card.py        model.json: all that is needed beside the weights
saved.py       save and load both
"""
