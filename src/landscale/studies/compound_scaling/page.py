"""The results of a compound-scaling study as tables for the terminal, and as a page in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from landscale.runtime.markdown import inline


class StudyTable(NamedTuple):
    """A table of texts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


SHAPE = ("depth", "width", "resolution", "side", "parameters", "GFLOPs")
RESULT = ("micro F1", "macro F1", "steps", "seconds")


def compound_scaling_tables(content: dict[str, Any]) -> list[StudyTable]:
    """The candidates and, after the training, the sizes. Trained candidates are sorted by micro F1, the best first."""
    title = f"{content['base']} at φ = 1: {content['budget'] / 1e9:.3g} GFLOPs (unscaled {_giga(content['unscaled'])})"
    rows = content["candidates"]
    if "best" not in content:
        return [StudyTable(title, SHAPE, [_shape(row) for row in rows])]
    ranked = sorted(rows, key=lambda row: -row.get("micro_f1", -1.0))
    search = StudyTable(title, (*SHAPE, *RESULT), [[*_shape(row), *_result(row)] for row in ranked])
    unscaled = ["0", "unscaled", *_shape(content["unscaled"]), *_result(content["unscaled"])]
    grown = [[f"{row['phi']:g}", row["axis"], *_shape(row), *_result(row)] for row in content["sizes"]]
    return [search, StudyTable("Sizes", ("φ", "axis", *SHAPE, *RESULT), [unscaled, *grown])]


def compound_scaling_page(content: dict[str, Any]) -> str:
    """The page of a study, which shows `compound-scaling.svg`."""
    seeds, best = content["seeds"], content["best"]
    recipe = inline(content["recipe"]["name"])
    over = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean ± standard deviation over {len(seeds)} seeds"
    parts = [
        f"# Compound scaling of {inline(content['base'])}",
        f"Recipe {recipe}; scores on the val split, {over}; macro F1 is over the classes that occur in it.",
        f"Best at φ = 1: α = {best['depth']:g}, β = {best['width']:g}, γ = {best['resolution']:g}.",
        *(_markdown(table) for table in compound_scaling_tables(content)),
        "![F1 against FLOPs and parameters](compound-scaling.svg)",
        "```python\n" + "\n".join(content["registration"]) + "\n```",
        *(f"- failed: {inline(problem)}" for problem in content["failed"].values()),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown(table: StudyTable) -> str:
    rule = ["---" if column == "axis" else "---:" for column in table.columns]
    lines = [f"| {' | '.join(cells)} |" for cells in (table.columns, rule, *table.rows)]
    return f"## {table.title}\n\n" + "\n".join(lines)


def _shape(row: dict[str, Any]) -> list[str]:
    factors = [f"{row[axis]:g}" for axis in ("depth", "width", "resolution")]
    return [*factors, f"{row['side']} px", f"{row['parameters']:,}", _giga(row)]


def _result(row: dict[str, Any]) -> list[str]:
    if "micro_f1" not in row:
        return ["failed", "", "", ""]
    spread = f" ± {row['micro_f1_deviation']:.4f}" if "micro_f1_deviation" in row else ""
    cells = [f"{row['micro_f1']:.4f}{spread}", f"{row['macro_f1']:.4f}"]
    return [*cells, f"{row['steps']:.0f}", f"{row['seconds']:.0f}"]


def _giga(row: dict[str, Any]) -> str:
    return f"{row['flops'] / 1e9:.3g}"
