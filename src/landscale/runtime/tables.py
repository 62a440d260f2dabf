"""Tables on the terminal: the output of `info`, `models`, `train` and `evaluate`."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from landscale.vocabulary.bands import BAND_SETS
from landscale.vocabulary.headline import headline, shortened, support_note

_console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)


def show_store(summary: dict[str, Any]) -> None:
    """Print `PatchStore.summary`."""
    splits = ", ".join(f"{n:,} {name}" for name, n in summary["splits"].items())
    labels = "multi-label" if summary["multi_label"] else "single-label"
    skipped = f", {summary['skipped']:,} skipped" if summary["skipped"] else ""
    synthetic = " synthetic" if summary["provenance"].get("synthetic") else ""
    _console.print(f"{summary['path']}{synthetic}: {summary['patches']:,} patches ({splits}{skipped})")
    classes = f"{labels}, {len(summary['classes'])} classes of {summary['nomenclature']}"
    _console.print(f"  {classes if summary['classes'] else 'no labels'}")
    for key, shape in summary["planes"].items():
        stretch = f" (255 is digital number {summary['stretches'][key]:g})" if key in summary["stretches"] else ""
        _console.print(f"  {key}: {' × '.join(str(s) for s in shape)}, unit: {summary['units'][key]}{stretch}")
    _console.print(f"  level: {summary['level']}")
    table = Table("band", "mean", "std", title="train split", title_justify="left")
    for band in summary["bands"]:
        if band in summary["statistics"]:
            row = summary["statistics"][band]
            table.add_row(band, f"{row['mean']:.2f}", f"{row['std']:.2f}")
    if summary["statistics"]:
        _console.print(table)
    table = Table("class", "patches")
    for name, count in summary["counts"].items():
        table.add_row(name, f"{count:,}")
    if summary["classes"]:
        _console.print(table)


def show_weights(config: dict[str, Any]) -> None:
    """Print the description of a classifier's weights."""
    scores = config.get("provenance", {}).get("scores", {})
    classes = f"{len(config['classes'])} classes ({config['nomenclature']})" if config["classes"] else "no classes"
    _console.print(f"{config['model']}: {', '.join(config['bands'])}; {classes}")
    _console.print(
        f"  input {config['side']}×{config['side']} px, {config['upsample']}; digest {config['digest'][:12]}"
    )
    _console.print(f"  unit: {', '.join(sorted({*config['units'].values()}))}; level: {config['level']}")
    if steps := config.get("provenance", {}).get("steps"):
        _console.print(f"  {shortened(steps)}")
    for key, value in headline(scores).items():
        _console.print(f"  {scores.get('split', '?')} {key} {value:.4f}")
    if note := support_note(scores):
        _console.print(f"  {note}")


def show_networks(config: dict[str, Any]) -> None:
    """Print a description of super-resolution weights."""
    _console.print(f"{config['model']}: {config['parameters']:,} parameters; digest {config['digest'][:12]}")
    _console.print(f"  unit: {config.get('unit', 'unknown')}; level: {config.get('level', 'unknown')}")
    for gsd, network in config["networks"].items():
        _console.print(f"  {gsd} → 10m: {', '.join(network['outputs'])}")


def show_scene(summary: dict[str, Any]) -> None:
    """Print `Scene.summary`."""
    offset = f", offset {summary['offset']} of its processing baseline is subtracted" if summary["offset"] else ""
    if not summary["offset_known"] and summary["unit"] in ("digital number", "unknown"):
        offset = ", offset unknown (no processing baseline), 0 is assumed"
    _console.print(f"{summary['path']}: {', '.join(summary['bands'])}")
    _console.print(f"  {summary['width']}×{summary['height']} px at {summary['pixel']:g} m, {summary['crs']}{offset}")
    converted = ", converted into digital numbers" if summary["unit"] == "reflectance" else ""
    _console.print(f"  unit: {summary['unit']}{converted}; level: {summary['level']}")


def show_models(rows: list[dict[str, Any]], bands: int, classes: int) -> None:
    """Print one row per network, then published figures."""
    title = f"at {bands} bands, {classes} classes; authors' parameters and ours less theirs at 10 bands, 19 classes"
    table = Table(title=title, title_justify="left")
    for column in ("model", "family", "parameters", "GFLOPs", "input", "authors'", "difference", "source"):
        words = column in ("model", "family", "source")
        table.add_column(column, justify="left" if words else "right", no_wrap=column != "source")
    for row in rows:
        published = row["authors"]
        counts = [f"{published['parameters']:,}", f"{published['difference']:+,}"] if published else ["", ""]
        sizes = [f"{row['parameters']:,}", f"{row['flops'] / 1e9:.2f}", "×".join(str(n) for n in row["input"])]
        table.add_row(
            row["name"], row["family"], *sizes, *counts, row["source"] if len(rows) == 1 else _cited(row["source"])
        )
    _console.print(table)
    for row in rows:
        for source, figures in row["published"].items():
            if figures.keys() != {"parameters"} or len(rows) == 1:
                values = ", ".join(f"{key} {value:,}" for key, value in figures.items())
                _console.print(f"{row['name']}, {source}: {values}", highlight=False)


def show_encoders(rows: list[dict[str, Any]], *, others: bool) -> None:
    """Print one row per trained network; `others`: also mention the names that no table can list."""
    table = Table("name", "network", "bands", "unit", "classes", "licence")
    for row in rows:
        name = row["name"] if row["by_name"] else f"{row['name']}=FILE"
        units = " and ".join(dict.fromkeys(row["units"].values()))
        table.add_row(
            name, row["model"], _short_bands(row["bands"]), units, str(len(row["classes"]) or "–"), row["licence"]
        )
    table.columns[0].no_wrap = True  # to be copied
    _console.print(table)
    if others:
        _console.print(
            "Also: timm:NAME, weights of timm for red, green and blue; hf-hub:OWNER/NAME@REVISION, weights of landscale."
        )
        if any(not row["by_name"] for row in rows):
            _console.print(
                "=FILE: its publisher gives no digest, so download the file first; --json gives the address."
            )


def _short_bands(bands: list[str]) -> str:
    named = next((s.name for s in BAND_SETS.values() if s.names == tuple(bands)), None)
    return named or (", ".join(bands) if len(bands) < 4 else f"{len(bands)} bands")


def _cited(source: str) -> str:
    """Authors and years of the sources, without titles."""
    return "; ".join(part.split(",")[0] for part in source.split("; "))


def show_plan(content: dict[str, Any]) -> None:
    """Print both distributions of the jobs, one row per worker."""
    _console.print(f"{content['patches']:,} patches in {content['jobs']:,} jobs for {content['workers']} workers")
    table = Table("worker", *content["plans"])
    for worker in range(content["workers"]):
        loads = [f"{p['patches'][worker]:,} patches, {p['jobs'][worker]} jobs" for p in content["plans"].values()]
        table.add_row(str(worker + 1), *loads)
    table.add_section()
    table.add_row("busiest above mean", *(f"{p['imbalance']:.1%}" for p in content["plans"].values()))
    _console.print(table)
