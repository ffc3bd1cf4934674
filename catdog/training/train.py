"""Stage 2: packed arrays become a model."""

import math
import time
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from catdog.dataset import splits
from catdog.errors import CatdogError, Stopped
from catdog.model import networks, pretrained, saved
from catdog.model.card import ModelCard, versions
from catdog.model.devices import (
    Device,
    compute_deterministically,
    describe,
    of_this_machine,
    pick_device,
)
from catdog.model.inference import TrainedModel
from catdog.model.inputs import pick_normalization
from catdog.params import Params
from catdog.paths import CHECKPOINTS
from catdog.support import device_lock
from catdog.support.progress import Progress, progress_bar
from catdog.support.stop_signals import StopRequest, stop_request
from catdog.training import batches, checkpoint, distributed, history, optimizers, sync_batch_norm
from catdog.training.distributed import ALONE, Group
from catdog.training.flops import StepCost
from catdog.training.history import Epoch, Timing

DIVERGED = 100.0  # times the loss of guessing: no training comes back from there
INITIAL, STEPS = 1, 2  # purposes of seeds, beside the order and the views of epochs
SAVE_EVERY = 60.0  # seconds of work that a kill may cost, at most, in epochs that take longer


def train(params: Params, prepared: Path, models: Path, history_file: Path) -> list[Epoch]:
    """Train as `params` says; write the kept model to `models` and a row an epoch to the history.

    A training that was stopped or killed goes on from its last checkpoint. Returns the history.
    Raises Stopped on SIGTERM or Ctrl-C, with all saved, and CatdogError when the training diverges.
    Several processes that torch.distributed's launcher started train together.
    """
    compute_deterministically()
    group = distributed.from_environment()
    device = pick_device(params.train.precision, local_rank=group.local_rank)
    with progress_bar(params.train.epochs, quiet=not group.first) as progress:
        mine = of_this_machine(device, group) if group.local_rank == 0 else []
        say = progress.log if group.first else print  # each machine says what it waits for
        with (
            device_lock.hold(mine, say),  # a signal ends the wait at once: nothing to save yet
            stop_request(patient=group.size > 1) as stop,
            distributed.joined(group, device.torch_device, stop),
        ):
            trainer = Trainer(params, prepared, device, group)
            path = CHECKPOINTS / f"{_key(params, prepared, device, group)}.safetensors"
            progress.log(describe(device, group.size))
            progress.log(trainer.describe())
            if trainer.resume(path):
                progress.log(f"going on after {trainer.place()}, from {path}")
            while len(trainer.history) < params.train.epochs:
                trainer.run_epoch(progress, path, stop)
                if group.first:
                    rows = trainer.history[-1], trainer.timings[-1]
                    progress.log(history.epoch_line(*rows, params.train.epochs))
            progress.log(history.cost_line(trainer.history, trainer.timings))
            if group.first:
                saved.save(models, trainer.kept_network(), trainer.card())
                history.write(history_file, trainer.history, Epoch)
                history.write(history_file.with_name("timing.csv"), trainer.timings, Timing)
                checkpoint.remove(path)
    return trainer.history


class Running:
    """What has been added up in the present epoch."""

    def __init__(self, device: torch.device) -> None:
        self.step = 0
        self.flops = 0
        self.seconds = self.waited = 0.0
        self.sums = torch.zeros(2, device=device)
        """of the losses, and of the right answers"""


class Trainer:
    """A training between two steps: the network, its average, the optimizers and the history."""

    def __init__(
        self, params: Params, prepared: Path, device: Device, group: Group = ALONE
    ) -> None:
        self.params, self.device, self.group = params, device, group
        self.train_split = splits.read_split(prepared, "train")
        self.val_split = splits.read_split(prepared, "val")
        self.classes = self.train_split.classes
        self.normalization = pick_normalization(params, prepared)
        self.photos = batches.Photos(
            self.train_split.photos, self.train_split.labels, device.torch_device
        )
        self.steps = batches.steps_an_epoch(len(self.photos), params.train.batch_size)
        distributed.refuse_too_many(group, len(self.photos) // self.steps)
        self.cost = StepCost(params, len(self.classes))
        self.network = self._begin()
        self.average = _average(self.network, params.train.ema)
        head = {id(weight) for weight in pretrained.head_of(self.network)}
        backbone = [weight for weight in self.network.parameters() if id(weight) not in head]
        slow = backbone if params.model.from_torchvision else []
        self.optimizers = optimizers.build_optimizers(
            params.optimizer, self.network, slow, params.model.torchvision.backbone_lr
        )
        self.forward: nn.Module | None = None
        self.frozen = False
        self.history: list[Epoch] = []
        self.timings: list[Timing] = []
        self.best: dict[str, Tensor] = {}
        self.running = Running(device.torch_device)
        self.saved = time.monotonic()

    def _begin(self) -> nn.Module:
        """Return the network as it is before the first step, on the device."""
        settings, model = self.params.train, self.params.model
        torch.manual_seed(batches.seed_of(settings.seed, 0, INITIAL))
        network = networks.build(model, len(self.classes), settings.eval_image_size)
        if model.from_torchvision:
            sizes = [settings.start_image_size, settings.image_size, settings.eval_image_size]
            pretrained.start(network, model.name, model.torchvision.weights, sizes)
        network = sync_batch_norm.with_shared_norms(network, self.group, self.device.torch_device)
        return network.to(self.device.torch_device).to(memory_format=torch.channels_last)

    def place(self) -> str:
        """Return in words how far the training is."""
        done, step = len(self.history), self.running.step
        inside = f" and {step} of {self.steps} steps" if step else ""
        return f"epoch {done}{inside}"

    def describe(self) -> str:
        """Return one line that says what is trained on what."""
        weights = networks.count_weights(self.network)
        return (
            f"{self.params.model.name} network of {weights:,} weights, {len(self.photos):,} photos "
            f"to train on, {len(self.val_split.labels):,} to choose the epoch by"
        )

    @property
    def judged(self) -> nn.Module:
        """The network that is judged and kept: the averaged one, if there is one."""
        return self.network if self.average is None else self.average.module

    def run_epoch(self, progress: Progress, path: Path, stop: StopRequest) -> None:
        """Train the rest of an epoch, judge it, add a row to the history and save all to `path`.

        Raises Stopped, after saving, when `stop` has been asked for.
        """
        number, image_size = len(self.history), self._image_size(len(self.history))
        self._train_epoch(number, image_size, progress, path, stop)
        start, running = time.perf_counter(), self.running
        loss, accuracy = (running.sums / len(self.photos)).tolist()
        self._refuse_divergence(number, loss)
        val_loss, val_accuracy = self._validate(image_size)
        self._refuse_divergence(number, val_loss)
        best = self._is_best(image_size, val_loss)
        if best or self.params.train.select == "last":
            self.best = {k: v.detach().clone() for k, v in self.judged.state_dict().items()}
        self.history.append(
            Epoch(
                epoch=number + 1,
                image_size=image_size,
                lr=round(self.params.optimizer.lr * self._lr_factor(number + 1, -1), 6),
                train_loss=round(loss, 6),
                train_accuracy=round(accuracy, 6),
                val_loss=round(val_loss, 6),
                val_accuracy=round(val_accuracy, 6),
                best=int(best),
                pflop=float(f"{running.flops / 1e15:.6g}"),
            )
        )
        share = running.waited / running.seconds
        seconds = running.seconds + time.perf_counter() - start
        speed = round(len(self.photos) / seconds, 1)
        times = round(seconds, 2), speed, round(share, 4)
        self.timings.append(Timing(number + 1, self.history[-1].train_loss, *times))
        self.running = Running(self.device.torch_device)
        self._save(path)
        if stop:
            self._stop()

    def _train_epoch(
        self, number: int, image_size: int, progress: Progress, path: Path, stop: StopRequest
    ) -> None:
        """Take the steps of an epoch that are left; `running` adds up what they give."""
        frozen = self._get_ready(number)
        running, start = self.running, time.perf_counter()
        for batch in self._batches(number, image_size, running.step):
            optimizers.set_lr(self.optimizers, self._lr_factor(number, running.step))
            # Dropout may differ between processes: each has photos of its own.
            purpose = (number, STEPS, running.step, self.group.rank)
            torch.manual_seed(batches.seed_of(self.params.train.seed, *purpose))
            running.sums += self.group.sum(self._step(batch))
            running.step += 1
            running.flops += self.cost.of(batch.photos, image_size, frozen)
            running.waited += batch.seconds
            progress.update(number + 1, running.step / self.steps)
            now = time.perf_counter()
            running.seconds, start = running.seconds + now - start, now
            if running.step < self.steps and (stop or time.monotonic() > self.saved + SAVE_EVERY):
                self._save(path)
                if stop:
                    self._stop()

    def _get_ready(self, number: int) -> bool:
        """Make the network ready to be trained; return whether only its head is, in this epoch."""
        model = self.params.model
        frozen = model.from_torchvision and number < model.torchvision.freeze_epochs
        pretrained.freeze(self.network, frozen)
        if self.forward is None or frozen != self.frozen:
            self.forward, self.frozen = self.group.wrap(self.network), frozen
            if self.device.torch_device.type == "cuda":  # on a CPU compiling does not pay
                self.forward = cast(nn.Module, torch.compile(self.forward))
        return frozen

    def _batches(self, number: int, image_size: int, first: int) -> Iterator[batches.Batch]:
        return batches.epoch(
            self.photos,
            self.params.augmentation,
            self.normalization,
            image_size=image_size,
            batch_size=self.params.train.batch_size,
            seed=self.params.train.seed,
            number=number,
            first=first,
            group=self.group,
        )

    def _step(self, batch: batches.Batch) -> Tensor:
        """Train on one batch; return the sum of its losses and the number of right answers."""
        assert self.forward is not None
        self.network.zero_grad(set_to_none=True)
        with self.device.autocast():
            logits: Tensor = self.forward(batch.inputs)
        smoothing = self.params.train.label_smoothing
        loss = F.cross_entropy(
            logits.float(), batch.labels, label_smoothing=smoothing, reduction="sum"
        )
        # Backward takes the mean over the processes, while the loss is the mean over all photos.
        (loss * (self.group.size / batch.photos)).backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        correct = (logits.detach().argmax(1) == batch.labels).sum()
        return torch.stack([loss.detach(), correct])

    def _is_best(self, image_size: int, val_loss: float) -> bool:
        """Return whether an epoch is the best so far, of those with photos of the last size."""
        last_size = self._image_size(self.params.train.epochs - 1)
        before = [row.val_loss for row in self.history if row.image_size == last_size]
        return image_size == last_size and round(val_loss, 6) < min(before, default=math.inf)

    def _validate(self, image_size: int) -> tuple[float, float]:
        """Return mean loss and accuracy on the validation photos: no augmentation, no gradients.

        While photos grow, those of validation grow with them, and mirror images are left out: the
        full judgement would take twice as long, and several times as long on small photos.
        """
        settings = self.params.train
        last_size = self._image_size(settings.epochs - 1)
        grown = round(settings.eval_image_size * image_size / last_size)
        side = min(settings.eval_image_size, max(settings.start_image_size, grown))
        card = self.card().model_copy(update={"flip": False, "image_size": side})
        model = TrainedModel(card, self.judged, self.device)
        own = model.logits(self.val_split.photos[self.group.share(len(self.val_split.labels))])
        logits = torch.from_numpy(np.concatenate(self.group.gather(own)))
        labels = torch.from_numpy(self.val_split.labels)
        loss = F.cross_entropy(logits, labels)
        return loss.item(), (logits.argmax(1) == labels).float().mean().item()

    def _lr_factor(self, number: int, step: int) -> float:
        """Return the factor on the learning rates in a step; -1 is the last of the epoch before."""
        progress = (number * self.steps + step + 0.5) / (self.params.train.epochs * self.steps)
        return optimizers.lr_factor(self.params.schedule, progress)

    def _save(self, path: Path) -> None:
        """Write a checkpoint; the state is the same in all processes, so one of them does."""
        if self.group.first:
            checkpoint.save(path, self.state())
        self.saved = time.monotonic()

    def _stop(self) -> None:
        # All processes get the signal, but each at a step of its own: the first decides.
        if self.group.first:
            raise Stopped(
                f"stopped after {self.place()}, all saved; the same command goes on from there"
            )

    def _image_size(self, number: int) -> int:
        plan, progress = self.params.train, number / self.params.train.epochs
        return batches.image_size_at(
            progress, plan.start_image_size, plan.image_size, plan.grow_from, plan.grow_until
        )

    def _refuse_divergence(self, number: int, loss: float) -> None:
        if not loss < DIVERGED * math.log(len(self.classes)):
            raise CatdogError(
                f"training diverged in epoch {number + 1}: the loss is {loss:.4g}; lower "
                f"optimizer.lr ({self.params.optimizer.lr:g}) in params.yaml"
            )

    def kept_network(self) -> nn.Module:
        """Return the network of the kept epoch."""
        self.judged.load_state_dict(self.best)
        return self.judged

    def card(self) -> ModelCard:
        """Return what model.json will say, with the epoch kept so far."""
        settings, kept = self.params.train, [row.epoch for row in self.history if row.best]
        last = settings.select == "last"
        return ModelCard(
            model=self.params.model,
            classes=self.classes,
            stored_image_size=self.params.prepare.image_size,
            image_size=settings.eval_image_size,
            flip=settings.eval_flip,
            mean=self.normalization.mean,
            std=self.normalization.std,
            precision=settings.precision,
            epoch=len(self.history) if last else max(kept, default=0),
            weights=networks.count_weights(self.network),
            pflop=history.total_pflop(self.history),
            versions=versions(),
        )

    def state(self) -> checkpoint.State:
        """Return what a later process needs to go on after this step."""
        tensors = {
            **checkpoint.prefixed("network", self.network.state_dict()),
            **checkpoint.prefixed("best", self.best),
            "sums": self.running.sums,
        }
        for index, optimizer in enumerate(self.optimizers):
            flat = checkpoint.flatten_optimizer(optimizer)
            tensors |= checkpoint.prefixed(f"optimizer{index}", flat)
        if self.average is not None:
            tensors |= checkpoint.prefixed("average", self.average.state_dict())
        running = self.running
        numbers = {
            "history": [astuple(row) for row in self.history],
            "timings": [astuple(row) for row in self.timings],
            "running": [running.step, running.flops, running.seconds, running.waited],
        }
        # Weights that appear twice (the last epoch is the best) must not share memory in the file.
        return checkpoint.State({name: value.clone() for name, value in tensors.items()}, numbers)

    def resume(self, path: Path) -> bool:
        """Take up the state at `path`, if there is one; return whether there was."""
        state = self.group.same(checkpoint.load(path) if self.group.first else None)
        if state is None:
            return False
        self.network.load_state_dict(checkpoint.with_prefix("network", state.tensors))
        if self.average is not None:
            self.average.load_state_dict(checkpoint.with_prefix("average", state.tensors))
        for index, optimizer in enumerate(self.optimizers):
            flat = checkpoint.with_prefix(f"optimizer{index}", state.tensors)
            checkpoint.restore_optimizer(optimizer, flat)
        self.best = checkpoint.with_prefix("best", state.tensors)
        self.history = [Epoch(*row) for row in state.numbers["history"]]
        self.timings = [Timing(*row) for row in state.numbers["timings"]]
        running = self.running
        running.step, running.flops, running.seconds, running.waited = state.numbers["running"]
        running.sums = state.tensors["sums"].to(self.device.torch_device)
        return True


def _average(network: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of a network's weights and norm statistics."""
    if decay == 0:
        return None
    ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=ema, use_buffers=True)


def _key(params: Params, prepared: Path, device: Device, group: Group) -> str:
    """Return the name of this training: its params, photos, first weights, code and arithmetic."""
    settings = params.model_dump_json(exclude={"evaluate"})
    photos = (prepared / "photos.csv").read_bytes() + (prepared / "stats.json").read_bytes()
    model = params.model
    weights = pretrained.fingerprint(model.torchvision.weights) if model.from_torchvision else ""
    kind = device.torch_device.type
    machine = f"{kind} {device.dtype} {torch.__version__} {group.size}"
    if kind == "cpu":  # as many threads, as many parts of each sum: other last bits
        machine += f" {torch.get_num_threads()}"
    return checkpoint.key_of(settings, photos, weights, machine)
