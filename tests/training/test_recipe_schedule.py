"""Recipes: every key is typed, documented and settable from file and command line; the learning-rate schedule."""

from __future__ import annotations

import math
import re
import types
import typing
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
import timm.optim
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from landscale.cli import main
from landscale.errors import BadInput, LandscaleError, UnknownName
from landscale.models import create_model, zoo
from landscale.training.recipe import Recipe, as_yaml, load_recipe, shipped
from landscale.training.schedule import highest_rate, rate_factor, rate_in_words
from landscale.vocabulary.bands import band_set

HINTS = typing.get_type_hints(Recipe)
DEFAULT = Recipe()


def other_value(key):
    """An allowed value of a key that is not its default, and its text on the command line."""
    hint, default = HINTS[key], getattr(DEFAULT, key)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        value = next(v for v in typing.get_args(hint) if v != default)
        return value, str(value)
    if hint is bool:
        return not default, str(not default).lower()
    if hint is int:
        value = (default or 0) + 3
        return value, str(value)
    if hint is float:
        value = (default or 0.0) + (0.05 if key not in ("layer_decay", "augment_until") else -0.25)
        return value, str(value)
    if hint is str:
        by_key = {"labels": "ben19", "bands": "B04,B03,B02", "model": "resnet18", "optimizer": "lamb", "loss": "focal"}
        return by_key.get(key, "custom"), by_key.get(key, "custom")
    if hint == list[list[float]]:
        return [[0.5, 32.0]], "[[0.5, 32]]"
    if hint == list[float]:
        return [3.0, 4.5], "[3, 4.5]"
    if typing.get_origin(hint) is dict:
        return {"drop_rate": 0.25}, "{drop_rate: 0.25}"
    raise AssertionError(f"no test value for {key}: {hint}")


# Keys that have no effect without others, or change others.
INIT = {"init": "w", "model": "resnet18"}
NEEDED = {"freeze": INIT, "lora": INIT, "unfreeze_every": {**INIT, "freeze": 2}, "init": {"model": "resnet18"}}
every_key = pytest.mark.parametrize("key", [f.name for f in fields(Recipe)])


# ---- recipe keys


@every_key
def test_every_key_is_a_flag(key):
    value, word = other_value(key)
    needed = [f"--{name}={content}" for name, content in NEEDED.get(key, {}).items()]
    expected = replace(DEFAULT, **NEEDED.get(key, {}) | {key: value})
    for name in {key, key.replace("_", "-")}:
        for words in ([f"--{name}", word], [f"--{name}={word}"]):
            found = load_recipe(None, [*needed, *words])
            assert found == expected
            assert type(getattr(found, key)) is type(value)


@every_key
def test_every_key_can_be_set_in_a_file_and_overridden_by_a_flag(key, tmp_path):
    value, _ = other_value(key)
    file = tmp_path / "own.yaml"
    needed = NEEDED.get(key, {})
    file.write_text(yaml.safe_dump({"momentum": 0.77} | needed | {key: value}))
    assert getattr(load_recipe(str(file), []), key) == value
    default = "null" if getattr(DEFAULT, key) is None else yaml.safe_dump(getattr(DEFAULT, key)).split("\n")[0]
    overridden = load_recipe(str(file), [f"--{key}={default}"])
    if key != "options":  # the entries of options are merged
        assert getattr(overridden, key) == getattr(DEFAULT, key)
    if key != "momentum":
        assert overridden.momentum == 0.77


@every_key
def test_every_key_is_documented(key, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["train", "--keys"])
    assert exit_info.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"--{key}" in text
    line = text.split(f"--{key} ")[1].split(" --")[0]
    assert len(line.split()) > 5


def test_without_file_and_flags_the_recipe_has_the_defaults():
    assert load_recipe(None, []) == DEFAULT


def test_a_dotted_flag_sets_one_option_of_the_model():
    assert load_recipe(None, ["--options.drop_rate", "0.5"]).options == {"drop_rate": 0.5}
    recipe = load_recipe("landscale", ["--options.drop_rate=0.5"])
    assert recipe.options == {"drop_path_rate": 0.1, "drop_rate": 0.5}


def test_numbers_and_switches_in_common_notations_are_read(tmp_path):
    """YAML 1.1 reads 1e-4, without a decimal point, as text."""
    file = tmp_path / "r.yaml"
    file.write_text("rate: 1e-4\nweight_decay: 1.0E-3\nclip_grad: 5\nturns: off\n")
    recipe = load_recipe(str(file), ["--smoothing", "1e-1"])
    assert (recipe.rate, recipe.weight_decay, recipe.clip_grad, recipe.smoothing) == (1e-4, 1e-3, 5.0, 0.1)
    assert recipe.turns is False


@given(
    rate=st.floats(1e-9, 1e9),
    milestones=st.lists(st.floats(0, 1e3), max_size=4),
    labels=st.sampled_from([None, "ben19"]),
)
@settings(max_examples=25, deadline=None)
def test_a_recipe_written_as_yaml_is_read_back_unchanged(tmp_path_factory, rate, milestones, labels):
    recipe = replace(DEFAULT, rate=rate, milestones=milestones, labels=labels, options={"drop_rate": rate})
    file = tmp_path_factory.mktemp("yaml") / "recipe.yaml"
    file.write_text(as_yaml(recipe))
    assert load_recipe(str(file), []) == recipe


# ---- shipped recipes


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_have_valid_and_consistent_values(name):
    recipe = load_recipe(name, [])
    assert recipe.name == name
    assert zoo(recipe.model)
    assert band_set(recipe.bands)
    assert timm.optim.get_optimizer_info(recipe.optimizer)
    assert (recipe.schedule == "step") == bool(recipe.milestones)
    assert all(0 < m < recipe.epochs for m in recipe.milestones)
    assert recipe.warmup_epochs < recipe.epochs
    content = yaml.safe_load(shipped()[name].read_text())
    assert content.items() <= asdict(recipe).items()


# Values of the keys that neither paper mentions: no further augmentation, no averaged weights, one view.
NOT_IN_PAPERS = {
    "objective": "labels",
    "task": "patches",
    "expander": 1024,
    "head": "linear",
    "head_options": {},
    "init": None,
    "freeze": 0,
    "unfreeze_every": 0.0,
    "lora": 0,
    "layer_decay": 1.0,
    "side": None,
    "scale": "linear",
    "accumulate": 1,
    "progressive": [],
    "clip_grad": None,
    "sync_norms": False,
    "compress": "none",
    "loss": "bce",
    "smoothing": 0.0,
    "balance": 0.0,
    "balance_beta": None,
    "oversample": 0.0,
    "shift": 0,
    "zoom": 0.0,
    "jitter": 0.0,
    "drop_bands": 0.0,
    "cutmix": 0.0,
    "augment_until": 1.0,
    "ema": 0.0,
    "views": 1,
    "thresholds": "half",
    "seed": 0,
    "precision": "auto",
    "compile": "auto",
    "placement": "auto",
    "on_divergence": "stop",
    "save_minutes": 5.0,
    "keep": 1,
}
PAPERS = {
    # Sedona et al. 2019, sections 3 and 4; see GUESSED for the rest.
    "sedona2019": {
        "labels": None,
        "rate_rule": "linear",
        "evaluate_every": 1,
        "name": "sedona2019",
        "model": "resnet50",
        "options": {"drop_rate": 0.5},
        "bands": "s2-12",
        "upsample": "bilinear",
        "epochs": 100,
        "batch": 64,
        "optimizer": "sgd",
        "rate": 0.1,
        "rate_batch": 256,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "step",
        "milestones": [30.0, 60.0, 80.0],
        "warmup_epochs": 5.0,
        "turns": True,
        "mixup": 0.2,
        "select": "last",
    },
    # Papoutsis et al. 2022: 10 bands, bicubic; Adam, 1e-4 per worker, no warm-up; 19 classes; best micro F1. The authors'
    # configuration (configs/base.json, train.py): batch 128, rate / 10 from epoch 24, evaluation where epoch % 10 == 0.
    "papoutsis2022": {
        "labels": "ben19",
        "rate_rule": "workers",
        "evaluate_every": 10,
        "name": "papoutsis2022",
        "model": "wide_resnet_eca_b4",
        "options": {},
        "bands": "s2-10",
        "upsample": "bicubic",
        "epochs": 30,
        "batch": 128,
        "optimizer": "adam",
        "rate": 1e-4,
        "rate_batch": None,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "step",
        "milestones": [24.0],
        "warmup_epochs": 0.0,
        "turns": False,
        "mixup": 0.0,
        "select": "micro_f1",
    },
}


@pytest.mark.parametrize("name", PAPERS)
@every_key
def test_the_recipes_of_the_papers_have_the_published_values(name, key):
    expected = NOT_IN_PAPERS | PAPERS[name]
    assert set(expected) == set(HINTS)
    assert getattr(load_recipe(name, []), key) == expected[key]


def test_the_rate_grows_with_the_number_of_workers_as_in_the_papers():
    """For k workers: 0.1 · k · 64 / 256 in Sedona et al. 2019, 1e-4 · k in Papoutsis et al. 2022."""
    for workers in (1, 4, 96):
        assert highest_rate(load_recipe("sedona2019", []), workers) == pytest.approx(0.1 * workers * 64 / 256)
        for batch in (64, 128):
            recipe = load_recipe("papoutsis2022", [f"--batch={batch}"])
            assert highest_rate(recipe, workers) == pytest.approx(1e-4 * workers)


# Keys of sedona2019 that the paper does not give.
GUESSED = {"momentum", "weight_decay", "mixup", "thresholds", "select"}


def test_guessed_keys_are_marked_in_the_recipe_file_and_in_the_documentation():
    lines = shipped()["sedona2019"].read_text().splitlines()
    assert {line.split(":")[0] for line in lines if "# guessed" in line} == GUESSED
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    assert {line.split("`")[1] for line in page.splitlines() if line.startswith("| `") and "guessed" in line} == GUESSED


def test_the_decay_of_sedona2019_is_twice_the_l2_of_keras():
    """Keras' l2(λ) adds λ·w² to the loss, the gradient of which is 2λ·w; torch's SGD adds decay·w to the gradient."""
    recipe, weight = load_recipe("sedona2019", []), torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0, weight_decay=recipe.weight_decay)
    (0.0 * weight).sum().backward()
    optimizer.step()
    assert 3.0 - weight.item() == pytest.approx(2 * 5e-5 * 3.0, rel=1e-2)


def test_evaluations_of_papoutsis2022_are_those_of_the_authors():
    recipe = load_recipe("papoutsis2022", [])
    evaluated = [e for e in range(recipe.epochs) if e % recipe.evaluate_every == 0 or e == recipe.epochs - 1]
    assert evaluated == [0, 10, 20, 29]
    factors = [rate_factor(recipe, epoch / recipe.epochs) for epoch in (0, 23.99, 24, 29.99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1])


def test_the_rate_of_the_landscale_recipe_grows_with_the_square_root_of_the_batch():
    recipe = load_recipe("landscale", [])
    assert highest_rate(recipe, 1) == pytest.approx(5e-4)
    assert highest_rate(recipe, 4) == pytest.approx(1e-3)
    assert highest_rate(replace(recipe, accumulate=4), 4) == pytest.approx(2e-3)
    assert highest_rate(recipe, 96) == pytest.approx(0.0049, abs=1e-4)  # the linear rule would give 0.048


# ---- another number of epochs


@pytest.mark.parametrize("epochs", [1, 3, 10, 50, 200])
@pytest.mark.parametrize("name", shipped())
def test_with_other_epochs_the_schedule_keeps_its_shape(name, epochs):
    own, other = load_recipe(name, []), load_recipe(name, ["--epochs", str(epochs)])
    assert other.epochs == epochs
    for k in range(101):
        assert rate_factor(other, k / 100) == pytest.approx(rate_factor(own, k / 100), abs=1e-9)


def test_a_file_without_epochs_has_the_default_number_of_them(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("schedule: step\nmilestones: [20]\nwarmup_epochs: 3\n")
    recipe = load_recipe(str(file), ["--epochs=15"])
    assert (recipe.milestones, recipe.warmup_epochs) == ([10.0], 1.5)


def test_flags_of_the_schedule_are_kept_with_other_epochs():
    recipe = load_recipe("sedona2019", ["--epochs=10", "--warmup-epochs=1", "--milestones=[5,8]"])
    assert (recipe.warmup_epochs, recipe.milestones) == (1.0, [5.0, 8.0])
    assert load_recipe("sedona2019", ["--epochs=10", "--milestones=[5]"]).warmup_epochs == pytest.approx(0.5)
    assert load_recipe("sedona2019", ["--epochs=10"]).milestones == pytest.approx([3, 6, 8])
    assert "0.5 epochs of warm-up, divided by 10 after epoch 3, 6, 8" in rate_in_words(
        load_recipe("sedona2019", ["--epochs=10"]), 1
    )


@pytest.mark.parametrize(
    "words, pattern",
    [
        (["--epochs=3", "--warmup-epochs=5"], "--warmup-epochs: found 5, expected less than the 3 epochs"),
        (["--epochs=3", "--warmup-epochs=3"], "--warmup-epochs: found 3, expected less than the 3 epochs"),
        (["--schedule=step", "--milestones=[10,40]"], "--milestones: found 40, expected less than the 30 epochs"),
        (["--rate-rule=sqrt"], "--rate-rule sqrt: needs --rate-batch"),
        (["--rate-rule=workers", "--rate-batch=128"], "--rate-rule workers: takes no --rate-batch"),
    ],
)
def test_schedules_and_rules_that_contradict_themselves_are_refused(words, pattern):
    with pytest.raises(LandscaleError, match=pattern):
        load_recipe(None, words)


def test_the_rate_is_described_in_words():
    assert rate_in_words(load_recipe("landscale", []), 4) == "rate 0.0005·√(1024/256) = 0.001 after 2 epochs of warm-up"
    assert rate_in_words(load_recipe("papoutsis2022", []), 4).startswith(
        "rate 0.0001·4 = 0.0004, divided by 10 after epoch 24"
    )
    assert rate_in_words(Recipe(rate=0.01), 4) == "rate 0.01"


# ---- invalid recipes


REFUSED = {
    "a key": (["--rat", "1"], r"unknown recipe key 'rat'; did you mean .*rate"),
    "a key with dashes": (
        ["--warm-up-epochs", "1"],
        r"unknown recipe key 'warm-up-epochs'; did you mean warmup_epochs",
    ),
    "a word for a number": (["--epochs", "many"], "epochs.*many"),
    "a fraction for a whole number": (["--batch=8.5"], "batch.*8.5"),
    "not one of the values": (["--schedule", "cosinus"], "schedule.*cosine.*cosinus"),
    "a loss": (["--loss", "focus"], r"unknown loss 'focus'; did you mean focal"),
    "views": (["--views", "3"], "views.*3"),
    "a word for a switch": (["--turns", "maybe"], "turns.*maybe"),
    "a number for a list": (["--milestones", "3"], "milestones.*3"),
    "no value": (["--rate"], "rate"),
    "a stray word": (["fast"], "fast"),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_an_invalid_flag_gives_one_error_line_and_creates_no_run(problem, tmp_path, capsys):
    words, pattern = REFUSED[problem]
    with pytest.raises(LandscaleError, match=pattern) as caught:
        load_recipe(None, words)
    assert "\n" not in str(caught.value)
    store = str(tmp_path / "never-reached.h5")
    assert main(["train", "--store", store, "--run", str(tmp_path / "run"), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("landscale: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Values of the right type but out of range; unchecked, they would cause a traceback or a training that does nothing.
OUT_OF_RANGE = [
    ("batch", "0"),
    ("batch", "-8"),
    ("epochs", "0"),
    ("epochs", "-1"),
    ("evaluate_every", "0"),
    ("seed", "-1"),
    ("side", "0"),
    ("side", "-3"),
    ("rate", "-0.1"),
    ("rate_batch", "0"),
    ("shift", "-1"),
    ("mixup", "-1"),
    ("cutmix", "-1"),
    ("ema", "2"),
    ("smoothing", "7"),
    ("warmup_epochs", "-5"),
    ("progressive", "[[0.5]]"),
    ("progressive", "[[0.5, 0.0]]"),
]


@pytest.mark.parametrize("key,word", OUT_OF_RANGE)
def test_values_out_of_range_are_refused(key, word):
    with pytest.raises(LandscaleError, match=f"{key}.*{re.escape(word)}"):
        load_recipe(None, [f"--{key}", word])


def test_unknown_recipes_and_invalid_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(UnknownName, match=r"unknown recipe 'sedona'; did you mean sedona2019\?"):
        load_recipe("sedona", [])
    with pytest.raises(UnknownName, match="unknown recipe"):
        load_recipe(str(tmp_path), [])  # a folder
    file = tmp_path / "own.yaml"
    for content, error, pattern in (
        ("rate: [1, 2\n", BadInput, r"own\.yaml: is not valid YAML"),
        ("- rate\n- batch\n", BadInput, r"own\.yaml: is not a recipe"),
        ("just words\n", BadInput, r"own\.yaml: is not a recipe"),
        ("epoch: 1\n", UnknownName, r"unknown recipe key 'epoch'; did you mean epochs"),
        ("1: 2\n", LandscaleError, r"unknown recipe key '1'"),
        ("epochs: soon\n", LandscaleError, r"own\.yaml: .*epochs.*soon"),
        ("milestones: 30\n", LandscaleError, r"own\.yaml: .*milestones.*30"),
    ):
        file.write_text(content)
        with pytest.raises(error, match=pattern) as caught:
            load_recipe(str(file), [])
        assert "\n" not in str(caught.value), content
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"own\.yaml"):
        load_recipe(str(file), [])
    file.write_text("init:\nside: null\n")  # keys that may be empty
    assert load_recipe(str(file), []) == DEFAULT
    file.write_text("# nothing but defaults\n")
    assert load_recipe(str(file), []) == DEFAULT


# ---- the learning rate


def schedule(**changes):
    return replace(Recipe(epochs=100), **changes)


def test_the_step_schedule_of_sedona_2019():
    recipe = load_recipe("sedona2019", ["--warmup-epochs", "0"])
    found = {epoch: rate_factor(recipe, epoch / 100) for epoch in (0, 29.99, 30, 59.99, 60, 79.99, 80, 100)}
    expected = {0: 1, 29.99: 1, 30: 0.1, 59.99: 0.1, 60: 0.01, 79.99: 0.01, 80: 0.001, 100: 0.001}
    assert found == pytest.approx(expected, rel=1e-9)


def test_milestones_include_the_warm_up_epochs():
    """Sedona et al. 2019: the rate falls after epochs 30, 60 and 80, the 5 of warm-up included; not after 35, 65 and 85."""
    recipe = load_recipe("sedona2019", [])
    found = {epoch: rate_factor(recipe, epoch / 100) for epoch in (5, 29.99, 30, 34.99, 59.99, 60, 79.99, 80, 84)}
    expected = {5: 1, 29.99: 1, 30: 0.1, 34.99: 0.1, 59.99: 0.1, 60: 0.01, 79.99: 0.01, 80: 0.001, 84: 0.001}
    assert found == pytest.approx(expected, rel=1e-9)


def test_warm_up_rises_linearly_to_the_full_rate():
    for kind in ("cosine", "step", "polynomial", "constant"):
        recipe = schedule(schedule=kind, warmup_epochs=5, milestones=[30])
        rising = [rate_factor(recipe, k / 1000) for k in range(50)]
        assert 0 < rising[0] < 0.03
        assert rising[-1] > 0.95
        steps = [b - a for a, b in pairwise(rising)]
        assert max(steps) == pytest.approx(min(steps), rel=1e-6)
        assert rate_factor(recipe, 0.05) == pytest.approx(1)


@pytest.mark.parametrize("warm", [0, 10])
def test_the_schedules_have_their_published_shapes(warm):
    def at(kind, done):  # `done`: fraction of the training after the warm-up
        return rate_factor(schedule(schedule=kind, warmup_epochs=warm), warm / 100 + done * (1 - warm / 100))

    for kind in ("cosine", "polynomial"):
        assert at(kind, 0) == pytest.approx(1)
        assert at(kind, 1) == pytest.approx(0, abs=1e-12)
    assert at("cosine", 0.5) == pytest.approx(0.5)
    assert at("cosine", 1 / 3) == pytest.approx((1 + math.cos(math.pi / 3)) / 2)
    assert at("polynomial", 0.5) == pytest.approx(0.25)
    assert at("constant", 0.7) == 1


@given(
    kind=st.sampled_from(["cosine", "step", "polynomial", "constant"]),
    progress=st.floats(0, 1),
    later=st.floats(0, 1),
    warm=st.floats(0, 150),
    epochs=st.integers(1, 100),
    milestones=st.lists(st.floats(0, 120), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_the_rate_factor_lies_in_0_to_1_rises_in_warm_up_and_falls_afterwards(
    kind, progress, later, warm, epochs, milestones
):
    recipe = Recipe(schedule=kind, warmup_epochs=warm, epochs=epochs, milestones=milestones)
    low, high = sorted((progress, later))
    first, second = rate_factor(recipe, low), rate_factor(recipe, high)
    assert 0 <= first <= 1 + 1e-12
    assert 0 <= second <= 1 + 1e-12
    if high < warm / epochs:
        assert first <= second
    elif low >= warm / epochs:
        assert second <= first + 1e-12


def test_the_rate_grows_with_the_global_batch():
    recipe = load_recipe("sedona2019", [])  # 0.1 for 256
    assert highest_rate(recipe, 1) == pytest.approx(0.1 * 64 / 256)
    assert highest_rate(recipe, 4) == pytest.approx(0.1)
    # The largest run of Sedona et al. 2019: 3.2.
    assert highest_rate(recipe, 128) == pytest.approx(0.1 * 128 * 64 / 256)
    assert highest_rate(replace(recipe, batch=256), 2) == pytest.approx(0.2)
    assert highest_rate(replace(recipe, rate_batch=None), 128) == 0.1


@pytest.mark.parametrize("name", shipped())
def test_changing_the_model_drops_options_of_the_recipes_model(name: str) -> None:
    """A recipe's options are for its own model, except `drop_rate`, which every model has."""
    own = load_recipe(name, [])
    other = load_recipe(name, ["--model", "resnet18"])
    assert other.model == "resnet18"
    assert other.options == {k: v for k, v in own.options.items() if k == "drop_rate"}
    create_model(other.model, 3, 5, **other.options)
    assert load_recipe(name, ["--model", own.model]) == own
    given = load_recipe(name, ["--model", "resnet18", "--options", '{"drop_path_rate": 0.25}'])
    assert given.options["drop_path_rate"] == 0.25
