"""Stage 2: arrays become a model.

train.py            the stage, and the training loop
setup.py            the network before the first step
state.py            what changes during a training, and so what a checkpoint holds
resume.py           exact resume: when to save, and which checkpoint belongs to which training
checkpoint.py       a checkpoint file
validation.py       loss and accuracy on the validation split
outputs.py          model, card, history.csv and timing.csv
history.py          one row per epoch
batches.py          seeded epochs of augmented batches
photo_store.py      the training photos in memory
augmentation.py     random affine and colour transforms
seeds.py            seeds derived from (seed, epoch, step)
optimizers.py       SGD, Adam, AdamW and Muon
schedules.py        learning rate and image size over the training
flops.py            operations of a step, counted
distributed.py      several processes: all-reduce, broadcast, shards
sync_batch_norm.py  batch norm over all of them
launch.py           start them
"""
