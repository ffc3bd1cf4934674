"""Write the outputs of training: the model with its card, history.csv and timing.csv."""

from pathlib import Path

from catdog.dataset.prepared import ChannelStats
from catdog.model import networks, saved
from catdog.model.card import ModelCard, versions
from catdog.params import Params
from catdog.paths import TIMING
from catdog.support.atomic_files import replacing_folder
from catdog.training import history
from catdog.training.history import Epoch, Timing
from catdog.training.state import TrainingState


def write_outputs(state: TrainingState, card: ModelCard, models: Path, history_file: Path) -> None:
    """Replace `models` with the selected weights and card; write the tables of the epochs."""
    with replacing_folder(models) as folder:
        saved.save(folder, state.load_selected_weights(), card)
    history.write(history_file, state.history, Epoch)
    history.write(history_file.with_name(TIMING.name), state.timings, Timing)


def model_card(
    params: Params, classes: list[str], normalization: ChannelStats, state: TrainingState
) -> ModelCard:
    """Return the content of model.json after at least one epoch, with the selected epoch."""
    settings = params.train
    best = [row.epoch for row in state.history if row.best]
    last = settings.select == "last"
    return ModelCard(
        model=params.model,
        classes=classes,
        stored_image_size=params.prepare.image_size,
        image_size=settings.eval_image_size,
        flip=settings.eval_flip,
        mean=normalization.mean,
        std=normalization.std,
        precision=settings.precision,
        threads=settings.threads,
        epoch=len(state.history) if last else max(best),
        weights=networks.count_parameters(state.network),
        pflop=history.total_pflop(state.history),
        versions=versions(),
    )
