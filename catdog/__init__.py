"""catdog: learn to tell cats from dogs, or the photos of any other class folders.

data/raw --prepare--> data/prepared --train--> models/ --evaluate--> metrics.json, reports/

ingest/       photos come in: archives, downloads, DVC
preparation/  stage 1, prepare: photos become arrays
dataset/      what stage 1 writes and the others read
model/        networks, devices, inputs, a model on disk
training/     stage 2, train
evaluation/   stage 3, evaluate
experiments/  compare revisions, promote the champion
support/      atomic files, process pools, signals, locks, progress
params/       params.yaml as validated settings
cli.py        the `catdog` command
predict.py    a model on new photos
paths.py      every path of dvc.yaml
errors.py     errors that a user can fix
"""

__version__ = "0.1.0"
