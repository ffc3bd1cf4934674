"""Fuzz the readers of untrusted files: `make fuzz` or `python -m tools.fuzz`.

runner.py     worker processes with limits of time and memory; what counts as a failure
mutations.py  mutate bytes, and values of JSON or YAML
images.py     photos of all formats through open_photo
archives.py   archives and folders through import_photos
settings.py   params files through load, and accepted ones through a tiny training run
models.py     model files through saved.load and a prediction
prepared.py   files of data/prepared through read_split and read_stats
"""
