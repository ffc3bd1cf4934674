"""A model: its network, its inputs, its device, and its files.

networks.py       the residual network and the seed network
pretrained.py     torchvision's classifiers, optionally with pretrained weights
weights_files.py  files of pretrained weights: read, download, checksum
devices.py        selection of device and precision
portable.py       fixed code paths of the numeric libraries, for precision portable
inputs.py         resizing and normalization: from photos to the inputs of a network
normalization.py  the mean and std that params.yaml selects
inference.py      logits and probabilities of prepared photos
card.py           model.json: everything except the weights that is needed to use a model
saved.py          save and load both files of a model
"""
