"""catdog: train an image classifier for cats and dogs, or for any other class folders.

data/raw --prepare--> data/prepared --train--> models/ --evaluate--> metrics.json, reports/

ingest/       import photos: archives, downloads, quarantine list, DVC
preparation/  stage 1, prepare: split the photos, write them as arrays
dataset/      read what stage 1 writes
model/        networks, devices, inputs, the model card, saving and loading a model
training/     stage 2, train: the loop, exact resume, several devices
evaluation/   stage 3, evaluate: metrics, plots, report
experiments/  compare revisions (statistical tests), promote the champion
support/      atomic files, process pools, signals, locks, progress
params/       params.yaml as validated settings
cli.py            the `catdog` command
stages.py         the stages of dvc.yaml as commands of a project
imported_code.py  refuse to run the code of another checkout
predict.py        predict the classes of new photos
paths.py          all paths of dvc.yaml and of the project's other files
errors.py         errors that a user can fix
"""

__version__ = "0.1.0"
