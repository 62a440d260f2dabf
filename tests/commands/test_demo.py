import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio

import landscale.demo
from landscale.demo import demo
from landscale.runtime.files import read_json
from landscale.runtime.signals import Stopped
from landscale.store import open_store
from landscale.training.recipe import load_recipe


@pytest.fixture
def tiny(monkeypatch):
    """The same road with little in it."""
    monkeypatch.setattr(landscale.demo, "PATCHES", 16)
    monkeypatch.setattr(landscale.demo, "UNSEEN", 4)
    recipe = replace(load_recipe("demo", []), epochs=1, batch=8, side=20, warmup_epochs=0.0)
    monkeypatch.setattr(landscale.demo, "load_recipe", lambda *_: recipe)


def times(out: Path) -> dict[str, float]:
    return {str(p.relative_to(out)): p.stat().st_mtime for p in out.rglob("*") if p.is_file()}


def stops(*_):
    raise Stopped("stopped after step 1")


def test_the_whole_road_stopped_once_and_only_what_is_missing_again(tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "demo"
    with monkeypatch.context() as patch:
        patch.setattr(landscale.demo, "train", stops)
        with pytest.raises(KeyboardInterrupt):  # the command line says that the same command goes on
            demo(out)
    assert "there already" not in capsys.readouterr().out
    page = demo(out)
    said = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in said[:6]] == [f"{k}/6 " for k in range(1, 7)]
    assert ["there already" in line for line in said[:6]] == [True] * 2 + [False] * 4
    assert f"Open {page} in a browser." in " ".join(said)
    assert open_store(out / "store.h5").attributes["provenance"]["synthetic"] is True
    assert read_json(out / "run" / "weights" / "config.json")["provenance"]["synthetic"] is True
    scored = read_json(out / "run" / "scores-test.json")
    assert (scored["split"], scored["patches"]) == ("test", open_store(out / "store.h5").split_sizes()["test"])
    with rasterio.open(out / "map.tif") as file:
        assert (file.count, file.width, file.height) == (19, 240, 240)
    text = page.read_text()
    assert 'class="banner"' in text
    assert text.count("data:image/png") == 2

    before = times(out)
    assert demo(out) == page
    assert times(out) == before
    assert capsys.readouterr().out.count("there already") == 6

    (out / "map.tif").unlink()
    demo(out)
    after = times(out)
    assert {name for name in after if after[name] != before[name]} == {"map.tif", "report.html"}


def test_what_is_older_than_its_source_is_not_there(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    assert not landscale.demo._newer(old, new)
    for k, path in enumerate((old, new)):
        path.touch()
        os.utime(path, (k, k))
    assert landscale.demo._newer(new, old)
    assert not landscale.demo._newer(old, new)


@pytest.mark.slow
def test_the_demo_as_a_user_runs_it(tmp_path):
    begun = time.monotonic()
    command = [sys.executable, "-m", "landscale", "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=590)
    print(f"{time.monotonic() - begun:.0f} s, the machine's load after it {os.getloadavg()[0]:.1f}")
    assert (tmp_path / "demo" / "report.html").is_file()
    assert "6/6" in done.stdout
    # Far above chance (0.3 when every class is always said), far below what the training can reach when not shortened.
    assert read_json(tmp_path / "demo" / "run" / "scores-test.json")["micro_f1"] > 0.45
