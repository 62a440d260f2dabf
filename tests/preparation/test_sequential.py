"""Archives (in memory) that are read in file order give the same store as a survey of the same patches."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from landscale.datasets.sequential import SequentialPatch, SequentialSurvey
from landscale.datasets.survey import OneByOne, PatchDetails, Survey
from landscale.errors import BadInput, LandscaleError
from landscale.formats.geotiff import Place
from landscale.preparation import PreparationResult, plan, prepare_survey, survey_dataset
from landscale.store import BAD, WHOLE, Layout, PatchStore, Plane, open_store
from streamed import same

OPTICAL = (Plane("data_10m", ("B02", "B03"), 64, 10), Plane("data_20m", ("B05",), 32, 20))
MEAN = Plane("data_mean", ("B08",), 64, 10)  # computed from the optical planes
RADAR = (Plane("data_radar", ("VV",), 32, 20, "float32"), Plane("data_height", ("DEM",), 16, 40, "int16"))
NAMES = [f"p{k:02}" for k in range(11)]

Planes = Mapping[str, NDArray[np.generic]]


def fill(name: str, planes: Planes) -> PatchDetails:
    """Pixels of a patch, different in every patch, plane, band and place."""
    number = NAMES.index(name)
    for key, plane in planes.items():
        seed = [number, *key.encode()]
        plane[...] = np.random.default_rng(seed).integers(1, 1000, plane.shape).astype(plane.dtype)
    return PatchDetails(Place("EPSG:32633", 1000.0 * number, 500.0), "T33UUP")


def add_mean(planes: Planes) -> None:
    planes["data_mean"][:, 0] = planes["data_10m"].mean(axis=1)


class MemorySequence:
    """Patches of an archive in memory; `damaged` ones have an error instead of details."""

    def __init__(
        self, names: list[str], planes: tuple[Plane, ...], changes: Mapping[str, PatchDetails | LandscaleError]
    ):
        self._names, self._keys, self._changes = iter(names), [plane.key for plane in planes], changes
        self.closed = False

    def read(self, planes: Planes, classes: NDArray[np.uint8]) -> SequentialPatch | None:
        name = next(self._names, None)
        if name is None:
            return None
        optical = name.removeprefix("radar-")
        details = fill(optical, {key: planes[key] for key in self._keys})
        if optical == name:
            classes[NAMES.index(name) % 3] = 1
        return SequentialPatch(name, self._changes.get(name, details), optical if optical != name else "")

    def consumed(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class MemoryArchive:
    """The primary archive: all of NAMES, in the order given."""

    path: Path
    names: list[str]
    most: int = 100

    def open(self) -> MemorySequence:
        return MemorySequence(self.names, OPTICAL, {})

    def classes_of(self, name: str) -> None: ...

    def describe(self, names: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"name": names, "split": [np.uint8(1 + NAMES.index(name) % 3) for name in names]})

    def capacity(self) -> int:
        return self.most

    def metadata_files(self) -> list[Path]:
        return []


@dataclass(frozen=True)
class MemoryPartner:
    """The partner archive: `radar-NAME` for each name, in the order given; pairs are known for some names."""

    path: Path
    names: list[str]
    paired: tuple[str, ...]
    changes: Mapping[str, PatchDetails | LandscaleError]
    title: str = "radar"
    planes: tuple[Plane, ...] = RADAR

    def pairs(self) -> dict[str, str]:
        return {f"radar-{name}": name for name in self.paired}

    def open(self, paired: Container[str]) -> MemorySequence:
        assert all(f"radar-{name}" in paired for name in self.paired)
        return MemorySequence([f"radar-{name}" for name in self.names], self.planes, self.changes)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CHUNK", 4)


@pytest.fixture
def archives(tmp_path: Path) -> SequentialSurvey:
    """Both archives, the partner's patches in another order, with one plane that is computed."""
    files = [tmp_path / "optical.bin", tmp_path / "radar.bin"]
    for file in files:
        file.write_bytes(file.name.encode())
    layout = Layout((*OPTICAL, MEAN, *RADAR), ("a", "b", "c"), "custom", multi_label=True)
    partner = MemoryPartner(files[1], NAMES[::-1], tuple(NAMES[:5]), {})
    primary = MemoryArchive(files[0], NAMES)
    return SequentialSurvey(layout, primary, partner, None, {"source": "memory"}, add_mean, ("data_mean",))


@pytest.fixture
def expected(archives: SequentialSurvey, tmp_path: Path) -> PatchStore:
    """The store of the same patches, read in any order."""

    def read(location: str, planes: Planes, classes: NDArray[np.uint8]) -> PatchDetails:
        details = fill(location, {key: plane for key, plane in planes.items() if key != "data_mean"})
        add_mean({key: plane[None] for key, plane in planes.items()})
        classes[NAMES.index(location) % 3] = 1
        return details

    table = archives.describe(NAMES)
    table["location"] = NAMES
    survey = Survey(archives.layout, table, None, OneByOne(read), archives.provenance)
    prepare_survey(survey, tmp_path / "expected.h5")
    return open_store(tmp_path / "expected.h5")


def prepared(
    survey: SequentialSurvey, tmp_path: Path, *, skip_bad: bool = False
) -> tuple[PreparationResult, PatchStore]:
    result = prepare_survey(survey, str(tmp_path / "s.h5"), skip_bad=skip_bad)
    return result, open_store(result.store)


def test_two_archives_with_a_computed_plane(archives: SequentialSurvey, expected: PatchStore, tmp_path: Path) -> None:
    result, store = prepared(archives, tmp_path)
    assert (result.patches, result.written, result.skipped) == (11, 11, [])
    assert store.column("name").tolist() == NAMES
    same(store, expected)
    assert prepared(archives, tmp_path)[0].written == 0


def test_more_patches_than_the_capacity(archives: SequentialSurvey, expected: PatchStore, tmp_path: Path) -> None:
    assert isinstance(archives.primary, MemoryArchive)
    _, store = prepared(replace(archives, primary=replace(archives.primary, most=3)), tmp_path)
    same(store, expected)


def test_all_patches_get_the_split_of_the_survey(archives: SequentialSurvey, tmp_path: Path) -> None:
    _, store = prepared(replace(archives, split=2), tmp_path)
    assert store.split_sizes() == {"val": 11}


def test_without_the_partner(archives: SequentialSurvey, tmp_path: Path) -> None:
    layout = replace(archives.layout, planes=(*OPTICAL, MEAN))
    _, store = prepared(replace(archives, layout=layout, partner=None), tmp_path)
    assert [plane.key for plane in store.layout.planes] == ["data_10m", "data_20m", "data_mean"]
    assert (store.states == WHOLE).all()


PARTNER_DAMAGE: dict[str, tuple[list[str], Mapping[str, PatchDetails | LandscaleError], str]] = {
    "missing": ([*NAMES[:4], *NAMES[5:]], {}, "patch p04: has no radar partner in "),
    "damaged": (NAMES, {"radar-p04": BadInput("radar.bin", "is torn")}, "radar.bin: is torn"),
    "elsewhere": (
        NAMES,
        {"radar-p04": PatchDetails(Place("EPSG:32633", 4010.0, 500.0))},
        "but its partner p04 lies at",
    ),
}


@pytest.mark.parametrize("case", PARTNER_DAMAGE)
def test_a_patch_without_a_right_partner(
    case: str, archives: SequentialSurvey, expected: PatchStore, tmp_path: Path
) -> None:
    names, changes, problem = PARTNER_DAMAGE[case]
    assert isinstance(archives.partner, MemoryPartner)
    survey = replace(archives, partner=replace(archives.partner, names=names, changes=changes))
    with pytest.raises(LandscaleError, match=r"\(--skip-bad leaves such patches out\)$") as caught:
        prepared(survey, tmp_path)
    assert problem in str(caught.value)
    result, store = prepared(survey, tmp_path, skip_bad=True)
    assert [name for name, _ in result.skipped] == ["p04"]
    assert problem in result.skipped[0][1]
    assert result.patches == 11
    again = prepare_survey(survey, result.store, skip_bad=True)
    assert (again.written, [name for name, _ in again.skipped]) == (0, ["p04"])
    assert store.states.tolist() == [BAD if name == "p04" else WHOLE for name in NAMES]
    for plane in store.layout.planes:
        pixels, right = store.pixels(plane.key), expected.pixels(plane.key)
        assert not pixels[4].any()
        assert np.array_equal(np.delete(pixels, 4, axis=0), np.delete(right, 4, axis=0))


def test_two_partners_of_one_patch(archives: SequentialSurvey, tmp_path: Path) -> None:
    assert isinstance(archives.partner, MemoryPartner)
    twice = replace(archives.partner, names=[*NAMES, "p03"])
    with pytest.raises(BadInput, match="holds two radar partners of p03"):
        prepared(replace(archives, partner=twice), tmp_path)


def test_other_archives_are_not_resumed(archives: SequentialSurvey, tmp_path: Path) -> None:
    """The digest covers size and ends of both archives."""
    prepared(archives, tmp_path)
    assert archives.partner is not None
    archives.partner.path.write_bytes(b"radar.Bin")
    with pytest.raises(LandscaleError, match="was prepared from other data"):
        prepared(archives, tmp_path)


def test_the_digest_covers_both_ends_of_an_archive(archives: SequentialSurvey) -> None:
    content = bytearray(3 << 20)
    digests = set()
    for changed in (0, (1 << 20) - 1, 2 << 20, len(content) - 1):
        content[changed] ^= 1
        archives.primary.path.write_bytes(content)
        digests.add(archives.digest())
    assert len(digests) == 4
    archives.primary.path.write_bytes(content + b"longer")
    assert archives.digest() not in digests


def test_archives_of_damaged_patches_only_are_refused(archives: SequentialSurvey, tmp_path: Path) -> None:
    assert isinstance(archives.partner, MemoryPartner)
    survey = replace(archives, partner=replace(archives.partner, names=[]))
    with pytest.raises(LandscaleError, match=r"^none of 11 patches can be read: .*patch p00: has no radar partner"):
        prepared(survey, tmp_path, skip_bad=True)
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize(
    ("option", "problem"), [("scheduler", "it takes no --scheduler"), ("ranks", "found several ranks")]
)
def test_archives_are_refused_for_a_dask_cluster_and_several_ranks(
    option: str, problem: str, archives: SequentialSurvey, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        options = ()

        def survey(self, *_: object) -> SequentialSurvey:
            return archives

    class FirstRank:
        first, world = True, 2

        def broadcast(self, value: object) -> object:
            return value

    monkeypatch.setattr("landscale.preparation.entry.load_dataset", lambda _: Memory())
    given: dict[str, object] = {option: "tcp://host:1" if option == "scheduler" else FirstRank()}
    with pytest.raises(LandscaleError, match=f"prepare memory: an archive is read by one process; {problem}"):
        survey_dataset("memory", "x", options={}, **given)  # type: ignore[arg-type]
