"""Stage 2: train the model. `train` runs the stage, `Trainer` implements the training loop."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from catdog.dataset.prepared import read_split
from catdog.errors import CatdogError, Stopped
from catdog.model import networks, pretrained
from catdog.model.card import ModelCard
from catdog.model.devices import (
    Device,
    allocation_errors,
    describe,
    pick_device,
    use_deterministic_algorithms,
)
from catdog.model.normalization import pick_normalization
from catdog.params import Params
from catdog.support import device_lock
from catdog.support.progress import Progress, progress_bar
from catdog.support.stop_signals import StopRequest, stop_request
from catdog.training import batches, distributed, history, memory, optimizers, outputs, schedules
from catdog.training.distributed import SINGLE, Group, local_devices
from catdog.training.flops import StepFlops
from catdog.training.history import Epoch, Timing
from catdog.training.loss import balanced_weights, cross_entropy
from catdog.training.photo_store import PhotoStore
from catdog.training.resume import CheckpointFile, checkpoint_path
from catdog.training.seeds import STEP, derive_seed
from catdog.training.setup import backbone_parameters, initial_network
from catdog.training.state import TrainingState
from catdog.training.validation import Validation

DIVERGED = 100.0  # times the loss of random guessing: above it, training does not recover


def train(
    params: Params,
    prepared: Path,
    models: Path,
    history_file: Path,
    check_inputs: Callable[[], None] = lambda: None,
) -> list[Epoch]:
    """Train as `params` says; write the model to `models` and one row per epoch to `history_file`.

    Training that was stopped or killed continues from its last checkpoint. If inputs have changed
    meanwhile, `check_inputs` raises CatdogError: no output is written, and the checkpoint stays for
    the next run with the old inputs. Returns the history.
    Raises Stopped on SIGTERM or Ctrl-C, after saving a checkpoint, and CatdogError if training
    diverges. Processes that torch.distributed's launcher started train together.
    """
    use_deterministic_algorithms()
    group = distributed.from_environment()
    device = pick_device(
        params.train.precision, local_rank=group.local_rank, threads=params.train.threads
    )
    with (
        progress_bar(params.train.epochs, quiet=not group.is_main) as progress,
        # While waiting for the lock, a signal terminates immediately: there is nothing to save yet.
        device_lock.hold(
            local_devices(device, group),
            torch.get_num_threads() * group.local_size,
            progress.log if group.is_main else print,
        ),
        stop_request(ignore_repeated=group.size > 1) as stop,
        distributed.joined(group, device.torch_device, stop),
        allocation_errors("train", memory.ADVICE),
    ):
        if group.is_main:
            check_inputs()  # the wait for a device may have taken hours
        trainer = Trainer(params, prepared, device, group)
        state = trainer.state
        checkpoint = CheckpointFile(checkpoint_path(params, prepared, device, group), state, group)
        progress.log(describe(device, group.size))
        progress.log(trainer.describe())
        if checkpoint.restore():
            place = state.position(trainer.steps_per_epoch)
            progress.log(f"resuming after {place}, from {checkpoint.path}")
        while len(state.history) < params.train.epochs:
            _train_epoch(trainer, checkpoint, progress, stop)
        progress.log(history.cost_line(state.history, state.timings))
        if group.is_main:
            check_inputs()
            outputs.write_outputs(state, trainer.card(), models, history_file)
        checkpoint.remove()
    return state.history


def _train_epoch(
    trainer: "Trainer", checkpoint: CheckpointFile, progress: Progress, stop: StopRequest
) -> None:
    """Train and validate the rest of an epoch; save checkpoints; raise Stopped on request."""
    state, epochs = trainer.state, trainer.params.train.epochs
    for done in trainer.train_epoch():
        progress.update(len(state.history) + 1, done)
        if done < 1 and (stop or checkpoint.due):
            checkpoint.save()
            trainer.stop_if(stop)
    trainer.end_epoch()
    checkpoint.save()
    trainer.stop_if(stop)
    progress.log(history.epoch_line(state.history[-1], state.timings[-1], epochs))


def _check_photo_counts(prepared: Path, training: int, validation: int) -> None:
    if training < 2 or validation < 1:  # batch norm needs two photos
        raise CatdogError(
            f"{prepared}: {training} training photos and {validation} validation photos; training "
            "requires at least 2 and at least 1; add photos"
        )


class Trainer:
    """One training run: its settings, photos and device, and the state that changes."""

    def __init__(
        self, params: Params, prepared: Path, device: Device, group: Group = SINGLE
    ) -> None:
        self.params, self.device, self.group = params, device, group
        split = read_split(prepared, "train")
        self.classes = split.classes
        self.normalization = pick_normalization(params, prepared)
        validation = read_split(prepared, "val")
        _check_photo_counts(prepared, len(split.rows), len(validation.rows))
        self.photos = PhotoStore(split.photos, split.labels, device.torch_device)
        self.class_weights: Tensor | None = None
        if params.train.class_weights == "balanced":
            weights = balanced_weights(torch.from_numpy(split.labels), len(self.classes))
            self.class_weights = weights.to(device.torch_device)
        self.steps_per_epoch = batches.steps_per_epoch(len(self.photos), params.train.batch_size)
        smallest, largest = batches.extreme_sizes(len(self.photos), self.steps_per_epoch)
        distributed.check_batch_is_large_enough(group, smallest)
        self.validation = Validation(params.train, validation, self.normalization, device, group)
        pretrained.check_image_sizes(params)
        self._check_memory(-(-largest // group.size))
        self.flops = StepFlops(params, len(self.classes))
        network = initial_network(params, len(self.classes), device, group)
        built = optimizers.build_optimizers(
            params.optimizer,
            network,
            slow=backbone_parameters(params, network),
            factor=params.model.torchvision.backbone_lr,
        )
        self.state = TrainingState(network, built, params.train.ema)
        self.forward: nn.Module | None = None
        self.frozen = False

    def train_epoch(self) -> Iterator[float]:
        """Train the remaining steps of the current epoch.

        Yields the completed fraction of the epoch after each step, in (0, 1]. At that moment the
        state is consistent, so that it can be saved.
        """
        epoch, totals = len(self.state.history), self.state.totals
        frozen, image_size = self.prepare_network(epoch), self.image_size(epoch)
        start = time.perf_counter()
        for batch in self.epoch_batches(epoch, image_size, totals.step):
            optimizers.set_lr(self.state.optimizers, self._lr_factor(epoch, totals.step))
            # The seed includes the rank, so that each process uses a different dropout mask.
            stream = (epoch, STEP, totals.step, self.group.rank)
            torch.manual_seed(derive_seed(self.params.train.seed, *stream))
            totals.sums += self.group.all_reduce(self.train_step(batch))
            totals.step += 1
            totals.flops += self.flops.count(batch.photos, image_size, frozen)
            totals.waited += batch.waited
            now = time.perf_counter()
            totals.seconds, start = totals.seconds + now - start, now
            yield totals.step / self.steps_per_epoch

    def train_step(self, batch: batches.Batch) -> Tensor:
        """Train on one batch; return (2,): the sum of its losses, and its correct predictions."""
        assert self.forward is not None
        self.state.network.zero_grad(set_to_none=True)
        with self.device.autocast():
            logits: Tensor = self.forward(batch.inputs)
        smoothing = self.params.train.label_smoothing
        loss = cross_entropy(logits.float(), batch.labels, self.class_weights, smoothing)
        # Backward averages over the processes, while the loss is the mean over all photos.
        (loss * (self.group.size / batch.photos)).backward()  # type: ignore[no-untyped-call]
        self.state.step()
        correct = (logits.detach().argmax(1) == batch.labels).sum()
        return torch.stack([loss.detach(), correct])

    def end_epoch(self) -> None:
        """Validate, select the weights if they are the best so far, and add to the history.

        Raises CatdogError if training has diverged.
        """
        state, epoch = self.state, len(self.state.history)
        start, totals, image_size = time.perf_counter(), state.totals, self.image_size(epoch)
        loss, accuracy = (totals.sums / len(self.photos)).tolist()
        self._check_divergence(loss)
        val_loss, val_accuracy = self.validation.evaluate(
            state.evaluated_network, image_size, self.final_image_size
        )
        weights = state.evaluated_network.state_dict().values()
        # The loss can be finite although norm statistics are infinite.
        finite = all(tensor.isfinite().all() for tensor in weights)
        self._check_divergence(val_loss if finite else math.nan)
        best = self._is_best(image_size, val_loss)
        if best or self.params.train.select == "last":
            state.select_weights()
        row = Epoch(
            epoch=epoch + 1,
            image_size=image_size,
            lr=round(self.params.optimizer.lr * self._lr_factor(epoch + 1, -1), 6),
            train_loss=round(loss, 6),
            train_accuracy=round(accuracy, 6),
            val_loss=round(val_loss, 6),
            val_accuracy=round(val_accuracy, 6),
            best=int(best),
            pflop=float(f"{totals.flops / 1e15:.6g}"),
        )
        seconds = totals.seconds + time.perf_counter() - start
        timing = Timing(
            epoch=epoch + 1,
            train_loss=row.train_loss,
            seconds=round(seconds, 2),
            images_per_second=round(len(self.photos) / seconds, 1),
            waiting_share=round(totals.waited / totals.seconds, 4),
        )
        state.end_epoch(row, timing)

    def stop_if(self, stop: StopRequest) -> None:
        """Raise Stopped if a stop was requested; the state must have been saved.

        All processes receive the signal, but at different steps: the first one stops them all.
        """
        if stop and self.group.is_main:
            place = self.state.position(self.steps_per_epoch)
            raise Stopped(
                f"stopped after {place}; checkpoint saved; run the same command to resume"
            )

    def card(self) -> ModelCard:
        """Return the content of model.json."""
        return outputs.model_card(self.params, self.classes, self.normalization, self.state)

    def describe(self) -> str:
        """Return one line about the network, the photos, and the weights and sizes of photos."""
        count, plan = networks.count_parameters(self.state.network), self.params.train
        parts = [
            f"{self.params.model.name} network, {count:,} parameters; {len(self.photos):,} "
            f"training photos, {len(self.validation):,} validation photos"
        ]
        if (weights := self.class_weights) is not None:
            parts.append(f"class weights from {weights.min():.3g} to {weights.max():.3g}")
        if (final := self.final_image_size) < plan.image_size:
            parts.append(
                f"the photos grow to {final} of {plan.image_size} pixels only, since there are too "
                "few epochs between train.grow_from and the last one"
            )
        return "; ".join(parts)

    def image_size(self, epoch: int) -> int:
        """Return the side of the training photos in an epoch (from 0), in pixels."""
        plan, progress = self.params.train, epoch / self.params.train.epochs
        return schedules.image_size_at(
            progress, plan.start_image_size, plan.image_size, plan.grow_from, plan.grow_until
        )

    @property
    def final_image_size(self) -> int:
        """The side of the training photos in the last epoch, in pixels."""
        return self.image_size(self.params.train.epochs - 1)

    def prepare_network(self, epoch: int) -> bool:
        """Put the network into training mode; return whether all but its head is frozen."""
        model = self.params.model
        frozen = model.from_torchvision and epoch < model.torchvision.freeze_epochs
        pretrained.freeze(self.state.network, frozen)
        if self.forward is None or frozen != self.frozen:
            self.forward, self.frozen = self.group.wrap(self.state.network), frozen
            if self.device.torch_device.type == "cuda":  # not faster on a CPU
                self.forward = cast(nn.Module, torch.compile(self.forward))
        return frozen

    def epoch_batches(self, epoch: int, image_size: int, first: int) -> Iterator[batches.Batch]:
        """Yield the batches of an epoch (from 0), beginning with step `first`."""
        return batches.epoch_batches(
            self.photos,
            self.params.augmentation,
            self.normalization,
            image_size=image_size,
            batch_size=self.params.train.batch_size,
            seed=self.params.train.seed,
            epoch=epoch,
            first=first,
            group=self.group,
        )

    def _check_memory(self, photos: int) -> None:
        """Raise CatdogError if training on shards of `photos` does not fit into free memory."""
        if self.device.torch_device.type == "cuda":
            return  # allocations fail with an error, and torch.compile needs less than the estimate
        shard = -(-len(self.validation) // self.group.size)
        needed = memory.required(self.params, len(self.classes), photos, shard)
        available = memory.free() // self.group.local_size
        memory.check(self.params, needed, available, half=self.device.dtype == torch.bfloat16)

    def _lr_factor(self, epoch: int, step: int) -> float:
        """Return the factor on the learning rates in a step; -1 is the last step before `epoch`."""
        steps = self.steps_per_epoch
        progress = (epoch * steps + step + 0.5) / (self.params.train.epochs * steps)
        return schedules.lr_factor(self.params.schedule, progress)

    def _is_best(self, image_size: int, val_loss: float) -> bool:
        """Return whether an epoch is the best so far among those at the final image size."""
        final = self.final_image_size
        before = [row.val_loss for row in self.state.history if row.image_size == final]
        return image_size == final and round(val_loss, 6) < min(before, default=math.inf)

    def _check_divergence(self, loss: float) -> None:
        if not loss < DIVERGED * math.log(len(self.classes)):
            epoch = len(self.state.history) + 1
            rates = self.params.optimizer
            rest = f" or optimizer.rest_lr ({rates.rest_lr:g})" if rates.name == "muon" else ""
            raise CatdogError(
                f"training diverged in epoch {epoch}: the loss is {loss:.4g}; "
                f"lower optimizer.lr ({rates.lr:g}){rest} or the dropout of the network in "
                "params.yaml"
            )
