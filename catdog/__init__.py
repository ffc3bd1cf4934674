"""catdog: learns to tell cats from dogs, and any other folders of photos apart.

data/raw --prepare--> data/prepared --train--> models/ --evaluate--> metrics.json, reports/

params.py    params.yaml as typed, validated settings      networks.py   the networks
photos.py    one photo of whatever kind becomes pixels     optim.py      optimizers and schedules
layouts.py   which class a file of an archive belongs to   checkpoint.py atomic save, exact resume
imports.py   photos come in, all or nothing                train.py      stage 2: arrays -> a model
downloads.py one large file, resumed                       progress.py   a bar, or a line an epoch
versioning.py hands photos to DVC                          trained.py    a trained model on disk
drawings.py  the embedded sample, drawn by the program     metrics.py    what the figures mean
prepare.py   stage 1: photos -> split, packed arrays       evaluate.py   stage 3: model -> metrics
batches.py   seeded epochs over the packed arrays          report.py     pictures and report.html
augment.py   one random view per photo, on the device      predict.py    a model on new photos
devices.py   the one place that picks device and dtype     cli.py        the `catdog` command
workers.py   processes that decode photos                  files.py      whole files or none
errors.py    what a user did wrong
"""

__version__ = "0.1.0"
