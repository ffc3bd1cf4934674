"""Stage 2: train the model.

train.py            the stage, and the training loop
setup.py            the network before the first step
state.py            the training state, which a checkpoint contains
resume.py           exact resume: when to save a checkpoint, and how to find it
checkpoint.py       read and write a checkpoint file
loss.py             cross-entropy, with class weights
validation.py       loss and accuracy on the validation set
outputs.py          write the model, its card, history.csv and timing.csv
history.py          one row per epoch
batches.py          augmented batches in a seeded random order
photo_store.py      the training photos in memory
augmentation.py     random affine and colour transforms
seeds.py            seeds derived from (seed, epoch, step)
optimizers.py       SGD, Adam, AdamW and Muon
schedules.py        schedules of learning rate and image size
memory.py           refuse a training run that needs more memory than is free
flops.py            count the floating-point operations of a step
distributed.py      several processes: all-reduce, broadcast, shards
sync_batch_norm.py  batch norm synchronized over all processes
launch.py           start the processes of distributed training
"""
