"""`prepare --upsample` adds every band at 10 m to the store; training can use them."""

from __future__ import annotations

from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import Cli
from landscale.store import SUPER, open_store
from landscale.vocabulary.bands import BANDS, band_set
from launchers import fork_context

ESA = band_set("s2-12").names


def test_every_band_is_at_10_m_and_in_esa_order(v2: Path, tmp_path: Path, cli: Cli) -> None:
    for way in ("bilinear", "bicubic"):
        path = tmp_path / f"{way}.h5"
        answer = cli("prepare", "bigearthnet", v2, path, "--upsample", way, "--workers", 1)
        assert answer.code == 0, answer.lines
        store = open_store(path)
        rows = np.arange(len(store))
        found = store.pixels(SUPER, rows)
        assert found.shape == (12, 12, 120, 120)
        for key, gsd in (("data_10m", 10), ("data_20m", 20), ("data_60m", 60)):
            plane = next(p for p in store.layout.planes if p.key == key)
            native = torch.from_numpy(store.pixels(key, rows).astype(np.float32))
            if gsd > 10:
                native = F.interpolate(native, scale_factor=gsd // 10, mode=way, align_corners=False)
            expected = native.round().clamp(0, 65535).numpy().astype(np.uint16)
            for k, band in enumerate(plane.bands):
                assert BANDS[band].gsd == gsd
                np.testing.assert_array_equal(found[:, ESA.index(band)], expected[:, k])
        assert cli("verify", path).code == 0
        info = cli("info", path, "--json").json
        assert info["bands"] == [b for b in BANDS if b in ESA]
        assert info["planes"][SUPER] == [12, 12, 120, 120]
        assert info["provenance"][SUPER] == {"upsample": way}


def test_statistics_are_those_of_the_native_bands(v2: Path, tmp_path: Path, cli: Cli) -> None:
    plain, more = tmp_path / "plain.h5", tmp_path / "more.h5"
    assert cli("prepare", "bigearthnet", v2, plain, "--workers", 1).code == 0
    assert cli("prepare", "bigearthnet", v2, more, "--upsample", "bicubic", "--workers", 1).code == 0
    assert dict(open_store(plain).statistics) == dict(open_store(more).statistics)


@pytest.mark.parametrize("workers", [2])
def test_any_number_of_workers_gives_the_same_bytes(
    workers: int, v2: Path, tmp_path: Path, cli: Cli, monkeypatch
) -> None:
    from landscale.preparation import plan

    fork_context()  # its server forks the workers, so that they need not import torch
    forkserver.ensure_running()
    monkeypatch.setattr(plan, "CHUNK", 4)
    for n in (1, workers):
        answer = cli("prepare", "bigearthnet", v2, tmp_path / f"{n}.h5", "--upsample", "bilinear", "--workers", n)
        assert answer.code == 0, answer.lines
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / f"{workers}.h5").read_bytes()


def test_training_from_stored_bands(v2: Path, tmp_path: Path, cli: Cli) -> None:
    """Bilinear bands from the store and from the model differ by rounding only; a store without them is refused."""
    plain, more = tmp_path / "plain.h5", tmp_path / "more.h5"
    assert cli("prepare", "bigearthnet", v2, plain, "--workers", 1).code == 0
    assert cli("prepare", "bigearthnet", v2, more, "--upsample", "bilinear", "--workers", 1).code == 0
    words = ("--model", "resnet18", "--epochs", 1, "--batch", 4, "--side", 120, "--precision", "fp32", "--json")
    scores = {}
    for name, store, how in (("model", more, "bilinear"), ("stored", more, "stored")):
        run = tmp_path / name
        answer = cli("train", "--store", store, "--run", run, "--upsample", how, *words)
        assert answer.code == 0, answer.lines
        answer = cli("evaluate", run, store, "--split", "test", "--json")
        assert answer.code == 0, answer.lines
        scores[name] = answer.json["micro_ap"]
    assert scores["stored"] == pytest.approx(scores["model"], abs=0.05)
    answer = cli("train", "--store", plain, "--run", tmp_path / "none", "--upsample", "stored", *words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert f"{plain}: has no {SUPER}" in answer.lines[0]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--upsample", "lanczos"], "unknown upsampling method 'lanczos'"),
        (["--upsample", "dsen2"], "needs --weights"),
        (["--upsample", "bilinear", "--weights", "x"], "takes no --weights"),
        (["--upsample", "dsen2", "--weights", "nowhere"], "nowhere"),
    ],
)
def test_refusals(words: list[str], problem: str, v2: Path, tmp_path: Path, cli: Cli) -> None:
    answer = cli("prepare", "bigearthnet", v2, tmp_path / "s.h5", *words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert problem in answer.lines[0]
    assert not list(tmp_path.glob("s.h5*"))


def test_eurosat_lacks_bands(eurosat: Path, tmp_path: Path, cli: Cli) -> None:
    answer = cli("prepare", "eurosat", eurosat, tmp_path / "s.h5", "--upsample", "bilinear")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "the data set lacks B01" in answer.lines[0]
