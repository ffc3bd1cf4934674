"""Stage 2: packed arrays become a model."""

import math
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from catdog import batches, checkpoint, networks, optim, prepare, trained
from catdog.devices import Device, describe, pick_device
from catdog.errors import CatdogError
from catdog.files import write_rows
from catdog.params import Params
from catdog.progress import Progress

IMAGENET = batches.Normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = batches.Normalization([0.5] * 3, [0.5] * 3)
DIVERGED = 100.0  # times the loss of guessing: no training comes back from there
INITIAL, STEPS = 1, 2  # purposes of seeds, beside the order and the views of epochs


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv."""

    epoch: int
    image_size: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    best: int


@dataclass(frozen=True)
class Timing:
    """One row of timing.csv, which is no DVC out: times differ, while outs repeat to the byte."""

    epoch: int
    seconds: float
    images_per_second: float
    waiting_share: float


def train(params: Params, prepared: Path, models: Path, history_file: Path) -> list[Epoch]:
    """Train as `params` says; write the kept model to `models` and a row an epoch to the history.

    A training that was killed goes on after its last whole epoch. Returns the history. Raises
    CatdogError when the training diverges.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = pick_device(params.train.precision)
    trainer = Trainer(params, prepared, device)
    path = checkpoint.FOLDER / f"{_key(params, prepared, device)}.safetensors"
    with Progress(params.train.epochs) as progress:
        progress.say(describe(device))
        progress.say(trainer.describe())
        if trainer.resume(path):
            progress.say(f"going on after epoch {len(trainer.history)}, from {path}")
        while len(trainer.history) < params.train.epochs:
            trainer.run_epoch(progress)
            checkpoint.save(path, trainer.state())
            progress.say(epoch_line(trainer.history[-1], trainer.timings[-1], params.train.epochs))
    trained.save(models, trainer.kept_network(), trainer.card())
    _write_rows(history_file, trainer.history, Epoch)
    _write_rows(history_file.with_name("timing.csv"), trainer.timings, Timing)
    path.unlink(missing_ok=True)
    return trainer.history


class Trainer:
    """A training between two epochs: the network, its average, the optimizer and the history."""

    def __init__(self, params: Params, prepared: Path, device: Device) -> None:
        self.params, self.device = params, device
        self.train_split = prepare.read_split(prepared, "train")
        self.val_split = prepare.read_split(prepared, "val")
        self.classes = self.train_split.classes
        self.normalization = pick_normalization(params, prepared)
        self.photos = batches.Photos(
            self.train_split.photos, self.train_split.labels, device.torch_device
        )
        self.steps = batches.steps_an_epoch(len(self.photos), params.train.batch_size)
        torch.manual_seed(batches.seed_of(params.train.seed, 0, INITIAL))
        network = networks.build(params.model, len(self.classes), params.train.eval_image_size)
        self.network = network.to(device.torch_device).to(memory_format=torch.channels_last)
        self.average = _average(self.network, params.train.ema)
        self.optimizer = optim.build_optimizer(params.optimizer, self.network)
        self.history: list[Epoch] = []
        self.timings: list[Timing] = []
        self.best: dict[str, Tensor] = {}

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

    def run_epoch(self, progress: Progress) -> None:
        """Train one epoch, judge it, and add a row to the history."""
        number, start = len(self.history), time.perf_counter()
        image_size = self._image_size(number)
        loss, accuracy, waited = self._train_epoch(number, image_size, progress)
        self._refuse_divergence(number, loss)
        val_loss, val_accuracy = self._validate()
        self._refuse_divergence(number, val_loss)
        best = round(val_loss, 6) < min((row.val_loss for row in self.history), default=math.inf)
        if best or self.params.train.select == "last":
            self.best = {k: v.detach().clone() for k, v in self.judged.state_dict().items()}
        self.history.append(
            Epoch(
                epoch=number + 1,
                image_size=image_size,
                lr=round(self._lr(number + 1, -1), 6),
                train_loss=round(loss, 6),
                train_accuracy=round(accuracy, 6),
                val_loss=round(val_loss, 6),
                val_accuracy=round(val_accuracy, 6),
                best=int(best),
            )
        )
        seconds = time.perf_counter() - start
        self.timings.append(
            Timing(number + 1, round(seconds, 2), round(len(self.photos) / seconds, 1), waited)
        )

    def _train_epoch(
        self, number: int, image_size: int, progress: Progress
    ) -> tuple[float, float, float]:
        """Return mean loss, accuracy, and the share of the time in which the device had no data."""
        self.network.train()
        total = torch.zeros(2, device=self.device.torch_device)
        waited, start = 0.0, time.perf_counter()
        for step, batch in enumerate(self._batches(number, image_size)):
            optim.set_lr(self.optimizer, self._lr(number, step))
            torch.manual_seed(batches.seed_of(self.params.train.seed, number, STEPS, step))
            total += self._step(batch.inputs, batch.labels)
            waited += batch.seconds
            progress.step(number + 1, (step + 1) / self.steps)
        loss, correct = (total / len(self.photos)).tolist()
        return loss, correct, round(waited / (time.perf_counter() - start), 4)

    def _batches(self, number: int, image_size: int) -> Iterator[batches.Batch]:
        return batches.epoch(
            self.photos,
            self.params.augmentation,
            self.normalization,
            image_size=image_size,
            batch_size=self.params.train.batch_size,
            seed=self.params.train.seed,
            number=number,
        )

    def _step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch; return the sum of its losses and the number of right answers."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.device.autocast():
            logits: Tensor = self.network(inputs)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.params.train.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        correct = (logits.detach().argmax(1) == labels).sum()
        return torch.stack([loss.detach() * len(labels), correct])

    def _validate(self) -> tuple[float, float]:
        """Return mean loss and accuracy on the validation photos: no augmentation, no gradients."""
        model = trained.TrainedModel(self.card(), self.judged, self.device)
        logits = torch.from_numpy(model.logits(self.val_split.photos))
        labels = torch.from_numpy(self.val_split.labels)
        loss = F.cross_entropy(logits, labels)
        return loss.item(), (logits.argmax(1) == labels).float().mean().item()

    def _lr(self, number: int, step: int) -> float:
        """Return the learning rate of a step; step -1 is the last one of the epoch before."""
        progress = (number * self.steps + step + 0.5) / (self.params.train.epochs * self.steps)
        return self.params.optimizer.lr * optim.lr_factor(self.params.schedule, progress)

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

    def card(self) -> trained.ModelCard:
        """Return what model.json will say, with the epoch kept so far."""
        settings, kept = self.params.train, [row.epoch for row in self.history if row.best]
        last = settings.select == "last"
        return trained.ModelCard(
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
            versions=trained.versions(),
        )

    def state(self) -> checkpoint.State:
        """Return what a later process needs to go on after this epoch."""
        tensors = {
            **checkpoint.prefixed("network", self.network.state_dict()),
            **checkpoint.prefixed("best", self.best),
            **checkpoint.prefixed("optimizer", checkpoint.flatten_optimizer(self.optimizer)),
        }
        if self.average is not None:
            tensors |= checkpoint.prefixed("average", self.average.state_dict())
        rows = {
            "history": [astuple(row) for row in self.history],
            "timings": [astuple(row) for row in self.timings],
        }
        # Weights that appear twice (the last epoch is the best) must not share memory in the file.
        return checkpoint.State({name: value.clone() for name, value in tensors.items()}, rows)

    def resume(self, path: Path) -> bool:
        """Take up the state at `path`, if there is one; return whether there was."""
        state = checkpoint.load(path)
        if state is None:
            return False
        self.network.load_state_dict(checkpoint.with_prefix("network", state.tensors))
        if self.average is not None:
            self.average.load_state_dict(checkpoint.with_prefix("average", state.tensors))
        optimizer = checkpoint.with_prefix("optimizer", state.tensors)
        checkpoint.restore_optimizer(self.optimizer, optimizer)
        self.best = checkpoint.with_prefix("best", state.tensors)
        self.history = [Epoch(*row) for row in state.numbers["history"]]
        self.timings = [Timing(*row) for row in state.numbers["timings"]]
        return True


def epoch_line(row: Epoch, timing: Timing, epochs: int) -> str:
    """Return the line of log of an epoch; a star marks the best so far."""
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  {row.image_size} px  "
        f"loss {row.train_loss:.4f}  val loss {row.val_loss:.4f}  "
        f"val accuracy {row.val_accuracy:.2%}{' *' if row.best else '  '}  "
        f"{timing.seconds:.1f} s, {timing.images_per_second:.0f} photos/s, "
        f"{timing.waiting_share:.1%} waiting for data"
    )


def pick_normalization(params: Params, prepared: Path) -> batches.Normalization:
    """Return the mean and std that `normalization` names."""
    settings = params.normalization
    if settings.mean is not None and settings.std is not None:
        return batches.Normalization(settings.mean, settings.std)
    if settings.source == "data":
        return batches.Normalization(**prepare.read_stats(prepared))
    return IMAGENET if settings.source == "imagenet" else HALF


def _average(network: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of a network's weights and norm statistics."""
    if decay == 0:
        return None
    ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=ema, use_buffers=True)


def _key(params: Params, prepared: Path, device: Device) -> str:
    """Return the name of this training: its params, its photos, its code and its arithmetic."""
    settings = params.model_dump_json(exclude={"evaluate"})
    photos = (prepared / "photos.csv").read_bytes() + (prepared / "stats.json").read_bytes()
    machine = f"{device.torch_device} {device.dtype} {torch.__version__}"
    return checkpoint.key_of(settings, photos, machine)


def _write_rows(path: Path, rows: list[Epoch] | list[Timing], kind: type) -> None:
    write_rows(path, [field.name for field in fields(kind)], map(astuple, rows))
