"""Evaluation uses every patch once and matches bands and classes by name; weights are loaded unchanged or refused."""

from __future__ import annotations

import ast
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

import landscale
from landscale.cli import main
from landscale.distributed import Ranks
from landscale.errors import BadInput, BadStore, UnknownName
from landscale.inference.evaluate import evaluate, infer
from landscale.loading import batches, evaluation_steps
from landscale.models import classifier as classifier_module
from landscale.models.classifier import Classifier
from landscale.models.weights import find_weights, load_model, read_config, save_weights
from landscale.store import Plane
from landscale.testing import CLASSES, make_store, sentinel_planes
from small_networks import small_description
from weights_folders import write_format_1

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
CPU = torch.device("cpu")
ORDERS = {  # the same patches under three arrangements of planes, bands and classes
    "home": (sentinel_planes(12), CLASSES),
    "classes": (sentinel_planes(12), tuple(reversed(CLASSES))),
    "planes": (
        (
            Plane("data_60m", ("B09", "B01"), 2, 60),
            Plane("data_20m", ("B12", "B05", "B8A", "B07", "B06", "B11"), 6, 20),
            Plane("data_10m", ("B08", "B03", "B02", "B04"), 12, 10),
        ),
        ("lake", "wheat", "forest", "town"),
    ),
}


@pytest.fixture(autouse=True)
def deterministic_inference(monkeypatch):
    """One thread and no bfloat16: so that results do not depend on how patches are grouped into batches."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(classifier_module, "reduced_precision", lambda device: False)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    sizes = {"train": 10, "val": 7, "test": 39}
    return {
        name: make_store(folder / f"{name}.h5", planes=planes, classes=classes, splits=sizes, seed=5)
        for name, (planes, classes) in ORDERS.items()
    }


def make_classifier(store, **changes):
    """Random weights whose probabilities differ clearly between patches, bands and classes."""
    about = {"classes": CLASSES, "thresholds": (0.3, 0.5, 0.6, 0.45), "units": {}, "level": "unknown", **changes}
    torch.manual_seed(3)
    classifier = Classifier(small_description(store, BANDS, **about))
    with torch.no_grad():
        for parameter in classifier.network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    (batch,) = batches(store, BANDS, store.classes, [np.arange(len(store.classes))], CPU)
    classifier.network.train()
    with torch.no_grad():
        for _ in range(40):  # updates the running statistics of batch norm
            classifier(batch.planes)
        logits = classifier(batch.planes)
        head = classifier.network.get_classifier()
        head.weight.div_(logits.std(0)[:, None] / 2)
        head.bias.sub_(logits.mean(0)).div_(logits.std(0) / 2)
    return classifier.eval()


@pytest.fixture(scope="module")
def classifier(stores):
    return make_classifier(stores["home"])


def probabilities(model, store, split="test"):
    return infer(model, store, store.patches(split), Ranks(), show=False)


# ---- evaluation


def test_scores_equal_those_of_scikit_learn(classifier, stores):
    store = stores["home"]
    scores = evaluate(classifier, store, "test", show=False)
    p, t = probabilities(classifier, store), store.classes[store.patches("test")]
    assert p.std(0).min() > 0.05  # probabilities differ clearly between patches
    found = p > np.array(classifier.description.thresholds)
    assert scores.patches == 39
    assert scores.split == "test"
    assert scores.micro_f1 == pytest.approx(f1_score(t, found, average="micro"))
    assert scores.macro_f1 == pytest.approx(f1_score(t, found, average="macro"))
    assert scores.micro_f1_at_half == pytest.approx(f1_score(t, p > 0.5, average="micro"))
    assert scores.macro_f1_at_half == pytest.approx(f1_score(t, p > 0.5, average="macro"))
    assert scores.micro_f1 != scores.micro_f1_at_half
    assert scores.micro_ap == pytest.approx(average_precision_score(t, p, average="micro"))
    assert scores.macro_ap == pytest.approx(average_precision_score(t, p, average="macro"))
    assert [row["support"] for row in scores.counts] == t.sum(0).tolist()
    assert all(sum(row[key] for key in ("tp", "fp", "fn", "tn")) == 39 for row in scores.counts)


@pytest.mark.parametrize("batch", [1, 5, 39, 1000])
def test_scores_do_not_depend_on_the_batch_size(classifier, stores, batch):
    assert evaluate(classifier, stores["home"], "test", batch=batch, show=False).counts == (
        evaluate(classifier, stores["home"], "test", show=False).counts
    )


@pytest.mark.parametrize("arrangement", ["classes", "planes"])
def test_bands_and_classes_are_matched_by_name(classifier, stores, arrangement):
    home, other = stores["home"], stores[arrangement]
    assert home.layout.classes != other.layout.classes
    assert not np.array_equal(home.classes, other.classes)
    assert np.array_equal(probabilities(classifier, home), probabilities(classifier, other))
    assert evaluate(classifier, other, "test", show=False) == evaluate(classifier, home, "test", show=False)
    by_position = other.classes[other.patches("test")]  # the targets if classes were matched by position
    assert not np.array_equal(by_position, home.classes[home.patches("test")])


def test_probabilities_are_in_the_order_of_the_patches_on_any_number_of_ranks(classifier, stores):
    """The other ranks are simulated: `gather` computes their parts."""
    store = stores["home"]
    patches = store.patches("test")
    forward = infer(classifier, store, patches, Ranks(), 64, show=False)
    backward = infer(classifier, store, patches[::-1].copy(), Ranks(), 7, show=False)
    assert np.allclose(backward[::-1], forward, atol=1e-5)
    assert len(np.unique(forward.round(4), axis=0)) == len(patches)

    class SimulatedRanks(Ranks):
        def gather(self, value):
            if self.world == 1:
                return [value]
            parts = (
                np.concatenate([patches[:0], *evaluation_steps(patches, 4, r, self.world)]) for r in range(self.world)
            )
            return [infer(classifier, store, rows, Ranks(), 4, show=False) for rows in parts]

    for world in (2, 3, 50):  # also more ranks than batches
        found = infer(classifier, store, patches, SimulatedRanks(0, world), 4, show=False)
        assert np.allclose(found, forward, atol=1e-5)


def test_a_store_without_train_is_scored_with_the_statistics_of_the_weights(classifier, stores, tmp_path):
    home = stores["home"]
    rows = home.patches("test")
    test_only = make_store(
        tmp_path / "test.h5",
        planes=sentinel_planes(12),
        splits={"test": len(rows)},
        labels=home.classes[rows],
        pixels={plane.key: home.pixels(plane.key, rows) for plane in home.layout.planes},
    )
    assert test_only.statistics == {}
    assert np.array_equal(probabilities(classifier, test_only), probabilities(classifier, home))
    assert evaluate(classifier, test_only, "test", show=False) == evaluate(classifier, home, "test", show=False)


def test_views_are_averaged_over_rotations_and_reflections(classifier, stores):
    store = stores["home"]
    one = probabilities(classifier, store)
    eight = probabilities(make_classifier(store, views=8), store)
    assert not np.allclose(one, eight, atol=1e-3)
    (batch,) = batches(store, BANDS, store.classes, [store.patches("test")], CPU)

    def rotated(k):
        from landscale.models.input_stage import turn

        return {
            names: turn(t.view(torch.int16), k).contiguous().view(torch.uint16) for names, t in batch.planes.items()
        }

    parts = [classifier.probabilities(rotated(k)).numpy() for k in range(8)]
    assert np.allclose(np.mean(parts, 0), eight, atol=1e-5)


def test_a_missing_split_band_or_class_is_refused(classifier, stores, tmp_path):
    with pytest.raises(UnknownName, match="did you mean test"):
        evaluate(classifier, stores["home"], "tset", show=False)
    rgb = make_store(
        tmp_path / "rgb.h5", planes=(Plane("data_10m", ("B02", "B03", "B04"), 12, 10),), splits={"test": 4}
    )
    with pytest.raises(BadStore, match=r"rgb\.h5: lacks B01"):
        evaluate(classifier, rgb, "test", show=False)
    with pytest.raises(BadStore, match="no patch of the split 'val'"):
        evaluate(classifier, rgb, "val", show=False)
    other_classes = make_store(
        tmp_path / "f.h5", planes=sentinel_planes(12), splits={"test": 4}, classes=("forest", "lake", "town", "ice")
    )
    with pytest.raises(BadStore, match=r"f\.h5.*'wheat'"):
        evaluate(classifier, other_classes, "test", show=False)


KEYS = {"patches", "split", "micro_f1", "macro_f1", "micro_f1_at_half", "macro_f1_at_half", "micro_ap", "macro_ap"}


def test_the_evaluate_command_prints_one_json_object(classifier, stores, tmp_path, capfd):
    """Only JSON on stdout, progress on stderr, the same figures in the file."""
    save_weights(tmp_path / "weights", classifier, {})
    words = ["evaluate", tmp_path / "weights", stores["home"].path, "--split", "test", "--json"]
    assert main([str(word) for word in (*words, "--out", tmp_path / "scores.json")]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1
    figures = json.loads(out)
    assert set(figures) >= KEYS | {"counts"}
    assert "accuracy" not in figures
    assert figures["patches"] == 39
    assert [row["name"] for row in figures["counts"]] == list(CLASSES)
    assert all(set(row) >= {"name", "tp", "fp", "fn", "tn", "support"} for row in figures["counts"])
    assert all(type(row[key]) is int for row in figures["counts"] for key in ("tp", "fp", "fn", "tn", "support"))
    assert "evaluate" in err
    assert json.loads((tmp_path / "scores.json").read_text()) == figures


def test_single_label_scores_have_an_accuracy(tmp_path, capsys):
    store = make_store(
        tmp_path / "s.h5", planes=sentinel_planes(12), splits={"train": 20, "test": 20}, multi_label=False
    )
    model = make_classifier(store, multi_label=False, thresholds=())
    save_weights(tmp_path / "weights", model, {})
    assert main(["evaluate", str(tmp_path / "weights"), str(store.path), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) >= KEYS | {"counts", "accuracy"}
    p, t = probabilities(model, store), store.classes[20:]
    assert np.allclose(p.sum(1), 1, atol=1e-5)
    assert figures["accuracy"] == pytest.approx((p.argmax(1) == t.argmax(1)).mean())


@pytest.mark.parametrize(
    "args,pattern",
    [
        (["WEIGHTS", "STORE", "--split", "vali"], "unknown split 'vali'"),
        (["WEIGHTS", "nothing.h5"], "no such store"),
        (["WEIGHTS", "WEIGHTS"], "weights"),
        (["nothing", "STORE"], "holds no weights"),
        (["STORE", "STORE"], "holds no weights"),
        (["WEIGHTS", "STORE", "--batch", "0"], "--batch"),
        (["WEIGHTS", "STORE", "--bath", "8"], "--bath"),
    ],
)
def test_bad_input_is_refused_with_one_line(classifier, stores, tmp_path, capsys, monkeypatch, args, pattern):
    import re

    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "weights", classifier, {})
    paths = {"WEIGHTS": "weights", "STORE": str(stores["home"].path)}
    assert main(["evaluate", *(paths.get(arg, arg) for arg in args), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("landscale: ")]
    assert len(lines) == 1
    assert re.search(pattern, lines[0]), lines[0]


def test_scores_of_a_run_are_written_to_its_folder(classifier, stores, tmp_path, capsys):
    run = tmp_path / "run"
    save_weights(run / "weights", classifier, {})
    (run / "run.json").write_text("{}")
    assert main(["evaluate", str(run), str(stores["home"].path), "--split", "val", "--json"]) == 0
    assert json.loads((run / "scores-val.json").read_text()) == json.loads(capsys.readouterr().out)


def test_a_run_on_read_only_media_is_scored(classifier, stores, tmp_path, capsys, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    run = tmp_path / "run"
    save_weights(run / "weights", classifier, {})
    (run / "run.json").write_text("{}")
    monkeypatch.setattr("landscale.runtime.documents.write_json", read_only)
    assert main(["evaluate", str(run), str(stores["home"].path), "--split", "val", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["patches"] > 0
    assert f"{run}: the scores are not saved there (Read-only file system)" in err


# ---- weights


def test_loaded_weights_equal_the_saved_ones(classifier, stores, tmp_path):
    save_weights(tmp_path / "weights", classifier, {"recipe": "tests", "seed": 3})
    loaded = landscale.load_model(tmp_path / "weights")
    assert not loaded.training
    assert np.array_equal(probabilities(loaded, stores["home"]), probabilities(classifier, stores["home"]))
    d, before = loaded.description, classifier.description
    assert (d.classes, d.bands, d.thresholds, d.views, d.side, d.ground) == (
        before.classes,
        before.bands,
        before.thresholds,
        before.views,
        before.side,
        before.ground,
    )
    assert {b: tuple(v) for b, v in d.statistics.items()} == {b: tuple(v) for b, v in before.statistics.items()}
    assert evaluate(loaded, stores["planes"], "test", show=False) == evaluate(
        classifier, stores["home"], "test", show=False
    )
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
    save_weights(tmp_path / "again", loaded, {"recipe": "tests", "seed": 3})
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "weights" / "model.safetensors"
    ).read_bytes()
    assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "weights" / "config.json").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"upsample": "nearest"},
        {"upsample": "bicubic", "side": 18},
        {"thresholds": (0.9, 0.1, 0.2, 0.3)},
        {"views": 8},
        {"multi_label": False, "thresholds": ()},
        {"bands": ("B8A", "B02", "B01")},
    ],
    ids=str,
)
def test_every_field_of_the_description_is_saved_with_the_weights(stores, tmp_path, changes):
    store = stores["home"]
    if "bands" in changes:
        changes = changes | {"statistics": {b: store.statistics[b] for b in changes["bands"]}}
    torch.manual_seed(0)
    model = Classifier(replace(make_classifier(store).description, **changes)).eval()
    save_weights(tmp_path / "weights", model, {})
    loaded = load_model(tmp_path / "weights")
    assert np.array_equal(probabilities(loaded, store), probabilities(model, store))
    assert evaluate(loaded, store, "test", show=False) == evaluate(model, store, "test", show=False)


def test_no_file_of_older_weights_remains_in_the_folder(classifier, stores, tmp_path):
    save_weights(tmp_path / "weights", make_classifier(stores["home"], views=2), {})
    (tmp_path / "weights" / "stale.txt").touch()
    save_weights(tmp_path / "weights", classifier, {})
    assert load_model(tmp_path / "weights").description.views == 1
    assert not (tmp_path / "weights" / "stale.txt").exists()


def test_older_weights_remain_if_writing_fails(classifier, stores, tmp_path, monkeypatch):
    save_weights(tmp_path / "weights", classifier, {})
    monkeypatch.setattr(
        "landscale.runtime.sealed_config.write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        save_weights(tmp_path / "weights", make_classifier(stores["home"], views=2), {})
    assert load_model(tmp_path / "weights").description.views == 1
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("position", [0, 9, 200, -1, -1000])
def test_one_flipped_bit_is_refused(classifier, tmp_path, position):
    save_weights(tmp_path / "weights", classifier, {})
    flip(tmp_path / "weights" / "model.safetensors", position)
    with pytest.raises(BadInput, match=r"model\.safetensors: is damaged"):
        load_model(tmp_path / "weights")


def test_a_folder_without_valid_weights_is_refused(classifier, tmp_path):
    save_weights(tmp_path / "weights", classifier, {})
    config, model = tmp_path / "weights" / "config.json", tmp_path / "weights" / "model.safetensors"
    valid_config, valid_weights = config.read_text(), model.read_bytes()

    def assert_refused(pattern):
        with pytest.raises(BadInput, match=pattern) as caught:
            load_model(tmp_path / "weights")
        assert "\n" not in str(caught.value)

    model.write_bytes(valid_weights[:-10])
    assert_refused("damaged")
    model.unlink()
    assert_refused(r"model\.safetensors: is missing")
    model.write_bytes(valid_weights)
    config.write_text(valid_config[:-30])
    assert_refused(r"config\.json: is not valid JSON")
    config.write_text("[]")
    assert_refused(r"config\.json")
    config.write_text(json.dumps({"architecture": "resnet50"}))  # a configuration of another library
    assert_refused(r"config\.json.*not a description of landscale weights")
    for own, pattern in (
        ({"landscale_format": 99}, "format 99"),
        ({"landscale_format": 2}, "landscale_format is 2"),
        ({"classes": ["one", "two"]}, "does not match its digest"),
    ):
        changed = json.loads(valid_config)
        changed["landscale"] |= own
        config.write_text(json.dumps(changed))
        assert_refused(pattern)
    for changes, pattern in (
        ({"classes": ["one", "two"], "thresholds": []}, r"model\.safetensors"),
        ({"landscale_format": 3}, "landscale_format is 3"),
        ({"landscale_format": 2}, "does not match its config_digest"),
        ({"bands": None}, "bands"),
    ):
        config.write_text(valid_config)
        write_format_1(config.parent, **changes)
        assert_refused(pattern)
    config.write_text(valid_config)
    assert load_model(tmp_path / "weights")
    with pytest.raises(BadInput, match="holds no weights"):
        load_model(tmp_path / "nothing")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(BadInput, match="has not ended"):
        load_model(tmp_path / "run")


def test_weights_are_found_in_the_folder_of_a_run(classifier, tmp_path):
    save_weights(tmp_path / "run" / "weights", classifier, {"recipe": "own"})
    assert find_weights(tmp_path / "run") == find_weights(tmp_path / "run" / "weights") == tmp_path / "run" / "weights"
    assert read_config(tmp_path / "run")["provenance"] == {"recipe": "own"}


def test_the_model_card_describes_the_model(classifier, tmp_path):
    about = {"recipe": "tests", "seed": 3, "synthetic": True, "scores": {"split": "val", "patches": 7, "micro_f1": 0.5}}
    save_weights(tmp_path / "weights", classifier, about)
    card = (tmp_path / "weights" / "README.md").read_text()
    assert "synthetic" in card
    assert "| micro_f1 | 0.5000 |" in card
    assert all(name in card for name in (*CLASSES, *BANDS))


def test_pickle_is_not_used_in_the_package():
    """Loading weights or checkpoints of others must not run their code. Tests for stores may pickle a store of their own.

    One module reads pickled tensors, with the restricted unpickler.
    """
    source = Path(landscale.__file__).parent
    files = sorted(path for path in source.rglob("*.py") if source / "testing" not in path.parents)
    assert len(files) > 20
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        calls = [node for node in nodes if isinstance(node, ast.Call) and file.name == "pickled.py"]
        restricted = [call.func for call in calls if any(ast.unparse(k) == "weights_only=True" for k in call.keywords)]
        for node in nodes:
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            else:
                names = []
            assert not set(names) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, file
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node not in restricted:
                assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save"), ("yaml", "load")}, file
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, file


def test_scores_do_not_replace_a_store(classifier, stores, tmp_path, capsys):
    """If the output path is that of the store, the command is refused and the store stays."""
    save_weights(tmp_path / "weights", classifier, {})
    store = stores["home"].path
    before = store.read_bytes()
    assert main(["evaluate", str(tmp_path / "weights"), str(store), "--split", "test", "--out", str(store)]) == 2
    assert "is an input of this command" in capsys.readouterr().err
    assert store.read_bytes() == before
    scores = tmp_path / "scores.json"
    scores.write_text('{"older": 1}')
    assert main(["evaluate", str(tmp_path / "weights"), str(store), "--split", "test", "--out", str(scores)]) == 2
    assert "exists and is not a file of scores" in capsys.readouterr().err
    scores.write_text("")  # an empty file, as mktemp makes
    for _ in range(2):  # the second time it has the scores of the first call
        assert main(["evaluate", str(tmp_path / "weights"), str(store), "--split", "test", "--out", str(scores)]) == 0
        assert json.loads(scores.read_text())["patches"] == 39
