"""Every path that dvc.yaml names, and where else a project keeps its files, relative to its top."""

from pathlib import Path

PARAMS = Path("params.yaml")
RAW = Path("data/raw")
RAW_POINTER = Path("data/raw.dvc")
PREPARED = Path("data/prepared")
MODELS = Path("models")
HISTORY = Path("reports/train/history.csv")
REPORTS = Path("reports/evaluate")
METRICS = Path("metrics.json")
LOCK = Path("dvc.lock")

# The folders of this package whose code each stage depends on, as in dvc.yaml. The key of a
# checkpoint uses those of prepare and train.
PREPARE_CODE = ("dataset", "preparation")
TRAIN_CODE = ("dataset", "model", "training")
EVALUATE_CODE = ("dataset", "evaluation", "model")

# No outs of DVC
TIMING = Path("reports/train/timing.csv")
CHECKPOINTS = Path(".catdog/checkpoints")
FETCHED = Path(".catdog/fetched")
DOWNLOADS = Path("data/.downloads")
QUARANTINE = Path("data/quarantine.csv")
