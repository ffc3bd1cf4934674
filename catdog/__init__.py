"""catdog: learns to tell cats from dogs, and any other folders of photos apart.

data/raw --prepare--> data/prepared --train--> models/ --evaluate--> metrics.json, reports/

params.py    params.yaml as typed, validated settings      networks.py   the networks
photos.py    read, verify and import photos                optim.py      optimizers and schedules
drawings.py  the embedded sample, drawn by the program     checkpoint.py atomic save, exact resume
prepare.py   stage 1: photos -> split, packed arrays       train.py      stage 2: arrays -> a model
batches.py   seeded epochs over the packed arrays          trained.py    a trained model on disk
augment.py   one random view per photo, on the device      metrics.py    what the figures mean
progress.py  a bar, or a line an epoch                     files.py      whole files or none
devices.py   the one place that picks device and dtype     evaluate.py   stage 3: model -> metrics
predict.py   a trained model on new photos                 report.py     pictures and report.html
cli.py       the `catdog` command                          errors.py     what a user did wrong
"""

__version__ = "0.1.0"
