"""The demonstration: at a size that takes seconds, and at full size (slow)."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rasterio

import landscale.demo
from landscale.demo import DemoSize, demo
from landscale.runtime.documents import read_json
from landscale.runtime.signals import Stopped
from landscale.store import open_store
from weights_folders import entries

TINY = DemoSize(
    patches=16,
    mapped_patches=4,
    stride=120,
    workers=1,
    recipe_keys=("--epochs=1", "--batch=8", "--side=20", "--warmup_epochs=0", "--model=wide_resnet"),
)


def times(out: Path) -> dict[str, float]:
    return {str(p.relative_to(out)): p.stat().st_mtime for p in out.rglob("*") if p.is_file()}


def stop_training(*_, **__):
    raise Stopped("stopped after step 1")


def test_a_stopped_demo_resumes_and_repeats_only_what_is_missing(tmp_path, monkeypatch, capsys):
    out = tmp_path / "demo"
    with monkeypatch.context() as patch:
        patch.setattr(landscale.demo, "train", stop_training)
        with pytest.raises(KeyboardInterrupt):  # the command line prints that the command can be run again
            demo(out, TINY)
    assert "(exists)" not in capsys.readouterr().out
    page = demo(out, TINY)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines[:6]] == [f"{k}/6 " for k in range(1, 7)]
    assert ["(exists)" in line for line in lines[:6]] == [True] * 2 + [False] * 4
    assert f"Open {page} in a browser." in " ".join(lines)
    assert open_store(out / "store.h5").attributes["provenance"]["synthetic"] is True
    assert entries(out / "run" / "weights")["provenance"]["synthetic"] is True
    scores = read_json(out / "run" / "scores-test.json")
    assert (scores["split"], scores["patches"]) == ("test", open_store(out / "store.h5").split_sizes()["test"])
    with rasterio.open(out / "map.tif") as file:
        assert (file.count, file.width, file.height) == (1, 240, 240)
    text = page.read_text()
    assert 'class="banner"' in text
    assert text.count("data:image/png") == 2

    before = times(out)
    assert demo(out, TINY) == page
    assert times(out) == before
    assert capsys.readouterr().out.count("(exists)") == 6

    files = {"map.tif", "map.tif.aux.xml", "map.qml", "map.png"}
    (out / "map.tif").unlink()
    demo(out, TINY)
    after = times(out)
    assert {name for name in after if after[name] != before[name]} == {*files, "report.html"}


def test_an_output_older_than_its_source_is_written_again(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    assert not landscale.demo._is_newer(old, new)
    for k, path in enumerate((old, new)):
        path.touch()
        os.utime(path, (k, k))
    assert landscale.demo._is_newer(new, old)
    assert not landscale.demo._is_newer(old, new)


@pytest.mark.slow
def test_the_demo_as_a_user_runs_it(tmp_path):
    begun = time.monotonic()
    command = [sys.executable, "-m", "landscale", "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=590)
    print(f"{time.monotonic() - begun:.0f} s, load average afterwards {os.getloadavg()[0]:.1f}")
    assert (tmp_path / "demo" / "report.html").is_file()
    assert "6/6" in done.stdout
    # Predicting every class everywhere scores 0.3; the training reaches more than 0.45 unless it is interrupted.
    assert read_json(tmp_path / "demo" / "run" / "scores-test.json")["micro_f1"] > 0.45
