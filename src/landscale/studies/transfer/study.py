"""The transfer study: a probe for every encoder and store, in a folder from which it is resumed, and one table of all."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscale.errors import BadInput
from landscale.probing import probe
from landscale.probing.cells import amounts_of, planned_cells
from landscale.probing.intervals import figure_names
from landscale.probing.training import check_packages
from landscale.runtime.documents import write_json
from landscale.runtime.files import named_lock
from landscale.runtime.progress import console
from landscale.store import PatchStore
from landscale.studies.results import Results, read_results
from landscale.studies.transfer.inputs import Encoder, check_pair, find_encoders, open_stores
from landscale.studies.transfer.rows import SCRATCH, Point, Row, read_points, store_rows, write_tables
from landscale.training.runs import environment

RESULTS_FILE = "transfer.json"


@dataclass(frozen=True)
class TransferPlan:
    """What is compared.

    Attributes:
        stores: paths of stores with the splits train, val and test.
        encoders: names of encoders (`models.encoders`).
        protocols: of `probing.cells.PROTOCOLS`. Without scratch there are no multiples of labels.
        fractions: of the labels of the train split. shots: patches of each class.
        seeds: number of draws of the patches, and of trainings.
        recipe: name of the recipe of trainings; None for that of `probing.training.probe_recipe`.
        words: its further keys, as `--key value`.
    """

    stores: tuple[str, ...]
    encoders: tuple[str, ...]
    protocols: tuple[str, ...]
    fractions: tuple[float, ...] = ()
    shots: tuple[int, ...] = ()
    seeds: int = 1
    recipe: str | None = None
    words: tuple[str, ...] = ()

    def command(self, out: Path) -> str:
        """The command line that repeats the study."""
        options = {
            "--encoders": self.encoders,
            "--protocol": self.protocols,
            "--fraction": tuple(map(str, self.fractions)),
            "--shots": tuple(map(str, self.shots)),
            "--seeds": (str(self.seeds),),
            "--recipe": (self.recipe,) if self.recipe else (),
            "--out": (str(out),),
        }
        given = [word for option, values in options.items() if values for word in (option, ",".join(values))]
        return shlex.join(["landscale", "benchmark", "transfer", *self.stores, *given, *self.words])


def run_transfer(plan: TransferPlan, out: Path) -> Results:
    """Probe every encoder on every store, and write `transfer.json`, `transfer.parquet` and `transfer.csv`.

    Each probe has a folder of its own in `out/probes`. After an interruption, or with more encoders, stores, protocols, amounts
    or seeds, only what is missing is computed. Encoders of the same network and input have the same training from scratch. It is
    done in the folder of the first of them, so add encoders at the end.

    Args:
        plan: what is compared.
        out: a new folder, or that of an earlier call.

    Returns:
        The content of `transfer.json`: `command`, `environment`, `encoders`, `stores`, and `rows` (`rows.store_rows`).

    Raises:
        LandscaleError: a number is out of range, there is no such protocol or encoder, a store cannot be used, an encoder does
            not fit a store, or `out` contains something else. All of this is found before anything is written.
    """
    planned_cells(plan.protocols, amounts_of(plan.fractions, plan.shots), plan.seeds, frozenset())
    check_packages(plan.protocols)
    _check_folder(out)
    stores = open_stores(plan.stores)
    encoders = find_encoders(plan.encoders, plan.recipe, plan.words)
    for store in stores:
        for encoder in encoders:
            check_pair(encoder, store, plan.protocols)
    content: Results = {
        "benchmark": "transfer",
        "command": plan.command(out),
        "environment": environment(),
        "encoders": [_about_encoder(encoder) for encoder in encoders],
        "stores": [_about_store(store) for store in stores],
        "rows": [],
    }
    out.mkdir(parents=True, exist_ok=True)
    with named_lock(out / ".lock", out, "is being written"):
        if not (out / RESULTS_FILE).exists():
            write_json(out / RESULTS_FILE, content)  # by which a later call recognises the folder
        for store in stores:
            content["rows"] += _probe_store(plan, store, encoders, out)
        write_tables(out, content["rows"])
        write_json(out / RESULTS_FILE, content)
    return content


def _check_folder(out: Path) -> None:
    """Raises: BadInput, if the folder contains anything but an earlier study."""
    if (out / RESULTS_FILE).exists():
        read_results(out / RESULTS_FILE, "transfer")
    elif out.exists() and (not out.is_dir() or any(not path.name.startswith(".") for path in out.iterdir())):
        raise BadInput(out, "is neither an empty folder nor a transfer study; choose another --out")


def _probe_store(plan: TransferPlan, store: PatchStore, encoders: list[Encoder], out: Path) -> list[Row]:
    """The rows of one store."""
    probed: list[tuple[Encoder, list[Point]]] = []
    for encoder in encoders:
        protocols = [name for name in plan.protocols if name != SCRATCH or encoder.trains_scratch]
        if not protocols:
            continue
        console.print(f"{encoder.name} on {store.path}", highlight=False)
        found = probe(
            encoder.name,
            store,
            out / "probes" / _file_name(store) / f"{encoder.description.model.replace('/', '-')}-{encoder.digest[:12]}",
            protocols,
            fractions=plan.fractions,
            shots=plan.shots,
            seeds=plan.seeds,
            recipe=encoder.recipe,
        )
        probed.append((encoder, read_points(found)))
    return store_rows(store, _main_figure(store), probed)


def _about_encoder(encoder: Encoder) -> dict[str, Any]:
    d = encoder.description
    about = {"encoder": encoder.name, "weights": encoder.digest, "network": encoder.network}
    return about | {"bands": list(d.bands), "side": d.side}


def _about_store(store: PatchStore) -> dict[str, Any]:
    return {
        "store": str(store.path),
        "digest": store.fingerprint(),
        "figure": _main_figure(store),
        "classes": len(store.layout.classes),
        "multi_label": store.layout.multi_label,
        "splits": store.split_sizes(),
        "chart": f"transfer-{_file_name(store)}.png",
    }


def _main_figure(store: PatchStore) -> str:
    return figure_names(multi_label=store.layout.multi_label)[0]


def _file_name(store: PatchStore) -> str:
    return f"{store.path.stem}-{store.fingerprint()[:12]}"
