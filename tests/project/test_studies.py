"""The study of the notebook's questions: its file, its table, its two evaluation errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from catdog import params
from catdog.dataset.prepared import Split
from catdog.experiments.significance import Difference
from catdog.params import Augmentation
from flows.sweeps.study import parse, points
from studies import mistakes
from studies.mistakes import Case
from studies.table import Line, markdown, with_verdicts
from tests.helpers.small_model import model, noise

ROOT = Path(__file__).resolve().parents[2]
UNCHANGED = {
    "crop_scale_min": 1.0,
    "crop_scale_max": 1.0,
    "crop_aspect": 1.0,
    "flip": 0.0,
    "rotation": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
}


def case(**augmentation: float) -> Case:
    """Return a model with inputs of 16 px and 40 test photos of that size; its accuracy is 75 %."""
    values = params.load(ROOT / "recipes/seed.yaml").augmentation.model_dump()
    settings = Augmentation.model_validate({**values, **UNCHANGED, **augmentation})
    classifier = model(stored_image_size=16, image_size=16)
    photos = noise(40, 16)
    labels = classifier.logits(photos).argmax(1).astype(np.int64)
    labels[:10] = 1 - labels[:10]  # wrong labels for a quarter of the photos
    return Case(classifier, Split(photos, labels, ["cat", "dog"], []), settings)


def difference(value: float, p: float) -> Difference:
    return Difference("no difference", value, value - 0.01, value + 0.01, p, 100, "a test")


def test_each_point_of_the_study_has_valid_params_and_three_seeds() -> None:
    file = ROOT / "studies/seed.yaml"
    found = points(parse(file.read_text(encoding="utf-8"), str(file)))
    seeds: dict[str, int] = {}
    for point in found:
        seeds[point.label] = seeds.get(point.label, 0) + 1
        values = params.read_yaml(ROOT / "recipes/seed.yaml")
        for override in point.overrides:
            key, _, value = override.partition("=")
            *sections, last = key.split(".")
            section = values
            for name in sections:
                section = section[name]
            assert last in section, key
            section[last] = yaml.safe_load(value)
        params.parse(values, point.name)
    assert set(seeds.values()) == {3}
    assert next(iter(seeds)) == "base"


def test_augmentation_without_effect_gives_the_plain_accuracy() -> None:
    assert mistakes.accuracy(case()) == 0.75
    assert mistakes.accuracy_augmented(case(), 1) == 0.75


def test_draws_differ_and_are_reproducible() -> None:
    turned = case(rotation=90.0, crop_scale_min=0.2)
    draws = [mistakes.accuracy_augmented(turned, draw) for draw in range(1, 6)]
    assert len(set(draws)) > 1
    assert draws == [mistakes.accuracy_augmented(turned, draw) for draw in range(1, 6)]


def test_gradients_change_no_logits_but_save_memory() -> None:
    example = case()
    with_them = mistakes.forward(example, True, 8)
    assert np.array_equal(with_them, mistakes.forward(example, False, 8))
    assert mistakes.saved_bytes(lambda: mistakes.forward(example, True, 8), example.model) > 0
    assert mistakes.saved_bytes(lambda: mistakes.forward(example, False, 8), example.model) == 0


def test_weights_do_not_count_as_saved() -> None:
    classifier = model()
    weight = next(classifier.network.parameters())
    other = torch.ones(weight.shape, requires_grad=True)
    assert mistakes.saved_bytes(lambda: other * weight, classifier) == other.nbytes


def test_verdicts_are_corrected_for_the_number_of_settings() -> None:
    first = Line("base", [0.7, 0.8], 0.1)
    one = with_verdicts([first, Line("a", [0.8, 0.9], 0.1, difference(0.1, 0.03))])
    assert [line.verdict for line in one] == ["", "better"]
    two = with_verdicts([*one, Line("b", [0.6, 0.7], 0.1, difference(-0.1, 0.04))])
    assert [line.verdict for line in two] == ["", "better (uncorrected)", "worse (uncorrected)"]
    none = with_verdicts([first, Line("d", [0.7, 0.7], 0.1, difference(-0.05, 0.06))])
    assert none[1].verdict == "no significant difference"
    sure = with_verdicts([first, Line("c", [0.5, 0.6], 0.1, difference(-0.2, 1e-6))])
    assert sure[1].verdict == "worse"


def test_the_table_has_mean_std_and_interval_of_each_setting() -> None:
    lines = with_verdicts(
        [
            Line("base", [0.70, 0.72, 0.74], 0.004),
            Line("half", [0.60, 0.62, 0.64], 0.004, difference(-0.1, 0.001)),
        ]
    )
    assert markdown(lines).splitlines()[2:] == [
        "| base | 72.0 ± 2.0 % |  |  |  |  | 0.004 |",
        "| half | 62.0 ± 2.0 % | −10.0 (−11.0 to −9.0) | 0.001 | worse | over 100 | 0.004 |",
    ]


@pytest.mark.parametrize("draws", [1, 3])
def test_the_table_of_augmented_photos_has_the_number_of_draws(
    draws: int, capsys: pytest.CaptureFixture[str]
) -> None:
    mistakes.show_augmented("HEAD", case(), draws)
    shown = capsys.readouterr().out
    assert f"{draws} draws" in shown
    assert "75.00%" in shown
