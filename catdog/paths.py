"""The paths of a project, relative to its root: those in dvc.yaml, and those outside DVC."""

from pathlib import Path

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
RAW = Path("data/raw")
RAW_POINTER = Path("data/raw.dvc")
SAMPLE = Path("data/.sample")  # a copy of the sample, see data/raw.dvc
PREPARED = Path("data/prepared")
MODELS = Path("models")
HISTORY = Path("reports/train/history.csv")
REPORTS = Path("reports/evaluate")
METRICS = Path("metrics.json")
LOCK = Path("dvc.lock")

# The folders of this package that each stage depends on, as in dvc.yaml. The name of a checkpoint
# is a hash that includes the code of prepare and train.
PREPARE_CODE = ("dataset", "preparation")
TRAIN_CODE = ("dataset", "model", "training")
EVALUATE_CODE = ("dataset", "evaluation", "model")

# Not tracked by DVC
TIMING = Path("reports/train/timing.csv")
CHECKPOINTS = Path(".catdog/checkpoints")
LOCKS = Path(".catdog/locks")
FETCHED = Path(".catdog/fetched")
REPLACED = Path(".catdog/replaced")
DOWNLOADS = Path("data/.downloads")
QUARANTINE = Path("data/quarantine.csv")
