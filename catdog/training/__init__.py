"""Stage 2: arrays become a model.

train.py            the stage and the training loop
checkpoint.py       exact resume: a state on disk
history.py          history.csv and timing.csv, one row per epoch
batches.py          seeded epochs of batches
augmentation.py     random affine and colour transforms
optimizers.py       optimizers and learning-rate schedules
flops.py            operations of a step, counted
distributed.py      several processes: all-reduce, broadcast, shards
sync_batch_norm.py  batch norm over all of them
launch.py           start them
"""
