"""Scenes → a map: the likeliest class of every pixel, and what belongs to it, in files for GIS programs.

Probabilities of windows are stored until the map is complete, so a killed process loses those of three rows of patches at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
import rasterio

from landscale.errors import LandscaleError
from landscale.inference.evaluate import load_predictor
from landscale.inference.exported import ExportedModel, Predictor, is_exported
from landscale.maps.encoding import MOST_CLASSES, entropy, likeliest, to_bytes
from landscale.maps.files import SOFTWARE, check_files, map_files
from landscale.maps.frame import Frame
from landscale.maps.layers import Layer, open_layers
from landscale.maps.legend import Entry, attribute_table, legend_tag, qgis_style
from landscale.maps.masks import Reason
from landscale.maps.mosaic import Overlap, by_cloud, lengths_of, merged_rows
from landscale.maps.palette import map_colours
from landscale.maps.polygons import write_polygons
from landscale.maps.quick_look import LONGEST, quick_look
from landscale.maps.rasters import growing_raster
from landscale.maps.reduced import ReducedMap
from landscale.maps.summary import ClassArea, MapSummary
from landscale.maps.viewer import check_true_colour, viewer_page
from landscale.models.classifier import Classifier, Description
from landscale.models.encoders import find_encoder
from landscale.runtime.files import atomic_files, remove_abandoned
from landscale.runtime.parts import resumable_parts
from landscale.runtime.progress import console, print_notes, progress_bar
from landscale.scenes.array_dataset import as_stack, is_dataset, is_zarr, open_zarr

if TYPE_CHECKING:
    import xarray

SceneInput = Union[str, Path, "xarray.Dataset", "xarray.DataArray"]
Numbers = Literal["uint8", "float32"]
# MB of GDAL's cache. Every block is read and written once, so more would only hold what is not needed again.
CACHE = 128
_OF_PIXELS = "the likeliest class of the pixel"


def predict(
    model: Predictor | str | Path,
    scene: SceneInput | Sequence[SceneInput],
    out: str | Path,
    stride: int | None = None,
    *,
    offset: int | None = None,
    probabilities: Numbers | None = None,
    show_entropy: bool = False,
    mask: str | Path | bool = True,
    aoi: str | Path | None = None,
    overlap: Overlap = "mean",
    polygons: str | Path | None = None,
    smallest_area: float = 0.0,
    viewer: bool = False,
    request: str = "",
) -> MapSummary:
    """Write the map of a scene, or of several scenes of one UTM zone. After an interruption, the same call resumes.

    Args:
        model: a classifier in eval mode, which is used on the device it is on; the name of weights
            (`models.encoders.find_encoder`); or a network that was exported for another runtime, or its folder.
        scene: one scene or several, each a product in any layout of `scenes.scene`; offsets of digital numbers are removed. Or a
            dataset of xarray, or the path of a Zarr folder (`scenes.array_dataset`), which are written into a temporary raster.
        out: the class map to write: uint8, the likeliest class by its index, 255 where nothing is mapped. The legend, a style for
            QGIS and a quick look are written beside it (`maps.files`).
        stride: distance between windows in pixels of the finest grid (`windows.window_grid`); by default that of the features of
            the network, where windows can be computed together, else half a window.
        offset: the offset that was added to the digital numbers; by default that of the metadata or name of each scene.
        probabilities: also write a raster with one band per class: "uint8" (0…250 for 0…1, nodata 255) or "float32".
        show_entropy: also write a raster of how undecided the classifier is (`maps.encoding.entropy`), as "uint8".
        mask: True: cloud, shadow and snow by the product's scene classification are not mapped (`maps.masks`); False: only
            nodata is not mapped, that is where all bands of the finest grid are 0; or a raster whose values other than 0 are not.
        aoi: a vector file with the area to be mapped.
        overlap: where scenes overlap, the "mean" of their probabilities, or those of the scene with the least cloud.
        polygons: also write this GeoPackage with the areas of the class map (`maps.polygons`).
        smallest_area: in square metres, of the polygons.
        viewer: also write an HTML page that shows the map over the scene in true colour.
        request: the tag REQUEST of the rasters, by which `maps.many` recognises finished maps.

    Raises:
        LandscaleError: the weights have no classes, or too many, or arguments contradict each other.
        BadInput: the weights or a scene cannot be read, a scene lacks bands or has a unit that cannot be converted into that
            of the weights, scenes do not fit each other, the area or the mask cannot be used, or a file of the map is part of an
            input, or exists and was not written by this function.
    """
    out = Path(out)
    given = [scene] if is_dataset(scene) or isinstance(scene, str | Path) else list(scene)
    if any(is_dataset(one) or is_zarr(Path(one)) for one in given):  # type: ignore[arg-type]
        check_files(
            map_files(out, probabilities=True, entropy=True, viewer=True, polygons=polygons),
            [one for one in given if isinstance(one, str | Path)],
        )
        with ExitStack() as stack:
            return predict(
                model,
                [stack.enter_context(_as_raster(one)) for one in given],
                out,
                stride,
                offset=offset,
                probabilities=probabilities,
                show_entropy=show_entropy,
                mask=mask,
                aoi=aoi,
                overlap=overlap,
                polygons=polygons,
                smallest_area=smallest_area,
                viewer=viewer,
                request=request,
            )
    scenes = [Path(path) for path in given]  # type: ignore[arg-type]
    _check_arguments(scenes, mask, overlap, probabilities, polygons, smallest_area)
    aoi = None if aoi is None else Path(aoi)
    inputs: list[str | Path] = [*scenes, *(path for path in (aoi, mask) if isinstance(path, str | Path))]
    if isinstance(model, ExportedModel):
        inputs.append(model.path)
    elif not isinstance(model, Classifier):
        inputs.append(model if is_exported(model) else find_encoder(model))
    paths = map_files(
        out, probabilities=probabilities is not None, entropy=show_entropy, viewer=viewer, polygons=polygons
    )
    check_files(paths, inputs)
    classifier = load_predictor(model) if isinstance(model, str | Path) else model
    if isinstance(classifier, Classifier):
        classifier.check_classes()
    d = classifier.description
    if len(d.classes) > MOST_CLASSES:
        raise LandscaleError(f"the weights have {len(d.classes)} classes, of which a map can have {MOST_CLASSES}")
    with rasterio.Env(GDAL_CACHEMAX=CACHE), ExitStack() as stack:
        frame, area, layers = open_layers(scenes, classifier, stride, stack, offset=offset, mask=mask, aoi=aoi)
        if overlap == "least-cloud":
            layers = by_cloud(layers)
        if viewer:
            check_true_colour(layers)
        _print_notes(layers, masked=mask is True)
        digest = classifier.digest()
        plan = {"classifier": digest, "scenes": {layer.key: layer.plan() for layer in layers}}
        done = stack.enter_context(resumable_parts(out, plan))
        for path in paths.values():
            if path.parent.is_dir():
                remove_abandoned(path)
        *_, temporary = places = stack.enter_context(atomic_files(list(paths.values())))
        places_of = dict(zip(paths, places, strict=True))
        colours = map_colours(d.classes)
        tags = (
            _tags(d, digest, layers, frame, colours)
            | {"MASK": _mask_name(layers, mask)}
            | ({"REQUEST": request} if request else {})
        )
        counts, reasons = np.zeros(len(d.classes), np.int64), np.zeros(len(Reason), np.int64)
        reduced = ReducedMap(frame, LONGEST)
        windows = sum(layer.windows.windows for layer in layers)
        with ExitStack() as rasters:
            write_classes = rasters.enter_context(
                growing_raster(temporary, out, frame, ["class"], tags, numbers="class", colours=colours)
            )
            if probabilities is not None:
                write_probabilities = rasters.enter_context(
                    growing_raster(
                        places_of["probabilities"],
                        paths["probabilities"],
                        frame,
                        d.classes,
                        tags,
                        numbers=probabilities,
                    )
                )
            if show_entropy:
                write_entropy = rasters.enter_context(
                    growing_raster(places_of["entropy"], paths["entropy"], frame, ["entropy"], tags, numbers="uint8")
                )
            advance = rasters.enter_context(progress_bar("predict", windows, "windows"))
            rows = [
                rasters.enter_context(
                    closing(layer.rows(frame, lengths_of(frame, layer), classifier, done.part_of(layer.key), advance))
                )
                for layer in layers
            ]
            for top, values, why in merged_rows(frame, area, len(d.classes), rows, layers, overlap):
                classes = likeliest(values)
                write_classes(top, classes[None])
                if probabilities is not None:
                    write_probabilities(top, values if probabilities == "float32" else to_bytes(values))
                if show_entropy:
                    write_entropy(top, to_bytes(entropy(values, multi_label=d.multi_label))[None])
                counts += np.bincount(classes.ravel(), minlength=256)[: len(d.classes)]
                reasons += np.bincount(why.ravel(), minlength=len(Reason))
                reduced.add(top, classes, values)
        entries = [Entry(k, name, colours[k], int(counts[k])) for k, name in enumerate(d.classes)]
        places_of["legend"].write_text(attribute_table(entries), encoding="utf-8")
        places_of["style"].write_text(qgis_style(entries), encoding="utf-8")
        places_of["quick_look"].write_bytes(quick_look(reduced, entries, tags["SCENE"]))
        if viewer:
            page = viewer_page(frame, reduced, layers, entries, _notes(tags))
            places_of["viewer"].write_text(page, encoding="utf-8")
        if polygons is not None:
            write_polygons(places_of["polygons"], paths["polygons"], temporary, d.classes, smallest_area, tags)
    mapped = max(1, int(counts.sum()))
    return MapSummary(
        map=str(out),
        files={kind: str(path) for kind, path in reversed(paths.items())},
        width=frame.width,
        height=frame.height,
        crs=str(frame.crs),
        pixel=frame.gsd,
        classes=d.classes,
        areas=tuple(ClassArea(e.name, e.pixels, e.pixels * frame.gsd**2, 100 * e.pixels / mapped) for e in entries),
        not_mapped={why.label: int(reasons[why]) for why in Reason if why != Reason.MAPPED},
        scenes=tuple(sorted(layer.name for layer in layers)),
        windows=windows,
        stride=layers[0].windows.stride,
        offset=layers[0].scene.offset,
    )


def _as_raster(scene: SceneInput) -> AbstractContextManager[Path]:
    """A path for a scene; a dataset of xarray or Zarr is written into a temporary raster."""
    if is_dataset(scene):
        return as_stack(scene)
    path = Path(scene)  # type: ignore[arg-type]
    return as_stack(open_zarr(path), path.stem) if is_zarr(path) else nullcontext(path)


def _check_arguments(
    scenes: Sequence[Path],
    mask: str | Path | bool,
    overlap: str,
    probabilities: str | None,
    polygons: str | Path | None,
    smallest_area: float,
) -> None:
    """Raise LandscaleError for arguments that contradict each other."""
    if not scenes:
        raise LandscaleError("no scene was given")
    if len(scenes) > 1 and not isinstance(mask, bool):
        raise LandscaleError("--mask is the mask of one scene; map several scenes with their own scene classification")
    if overlap not in ("mean", "least-cloud"):
        raise LandscaleError(f"overlap: found {overlap}, expected mean or least-cloud")
    if overlap == "least-cloud" and mask is False:
        raise LandscaleError("least-cloud needs the masks of the scenes; leave out --no-mask")
    if probabilities not in (None, "uint8", "float32"):
        raise LandscaleError(f"probabilities: found {probabilities}, expected uint8 or float32")
    if not 0 <= smallest_area < float("inf"):
        raise LandscaleError(f"--smallest-area: found {smallest_area:g}, expected square metres from 0")
    if smallest_area and polygons is None:
        raise LandscaleError("--smallest-area is that of --polygons; give both")


def _print_notes(layers: Sequence[Layer], *, masked: bool) -> None:
    for layer in layers:
        scene = layer.scene
        if not scene.offset_known and scene.unit in ("digital number", "unknown"):
            console.print(f"{scene.folder}: no processing baseline found, so the digital numbers are taken as they are")
        print_notes(layer.notes)
        if masked and layer.mask is None:
            print_notes(
                [f"{scene.folder}: no scene classification found, so clouds are mapped too; --mask FILE marks them"]
            )


def _notes(tags: Mapping[str, str]) -> list[str]:
    """Lines about a map for its readers, by the metadata of its rasters."""
    side, stride = float(tags["WINDOW_METRES"]) / 1000, float(tags["STRIDE_METRES"])
    lines = [
        f"Each pixel shows {tags['CLASS_RULE']} by windows of {side:g} km, {stride:g} m apart"
        + ("." if tags["CLASS_RULE"] == _OF_PIXELS else ": the class of a neighbourhood, not of the single pixel."),
        "Clouds are not masked."
        if tags["MASK"] == "none"
        else f"Not mapped: what the {tags['MASK']} marks, and nodata.",
        f"Written by landscale {tags['LANDSCALE_VERSION']} with weights {tags['WEIGHTS_DIGEST'][:12]} ({tags['MODEL']}).",
    ]
    return ([f"Recorded {tags['ACQUIRED']}."] if "ACQUIRED" in tags else []) + lines


def _mask_name(layers: Sequence[Layer], mask: str | Path | bool) -> str:
    """What marks clouds in the map, as a tag."""
    if all(layer.mask is None for layer in layers):
        return "none"
    return "scene classification" if mask is True else f"mask {Path(str(mask)).name}"


def _class_rule(d: Description) -> str:
    if d.pixels:
        return _OF_PIXELS
    return "the likeliest of several labels" if d.multi_label else "the likeliest class"


def _tags(d: Description, digest: str, layers: Sequence[Layer], frame: Frame, colours: Sequence[str]) -> dict[str, str]:
    """The metadata of the rasters: where the map comes from, and what its values mean."""
    windows = layers[0].windows
    tags: dict[str, Any] = {
        "TIFFTAG_SOFTWARE": SOFTWARE,
        "LANDSCALE_VERSION": version("landscale"),
        "WEIGHTS_DIGEST": digest,
        "MODEL": d.model,
        "SCENE": ", ".join(sorted(layer.name for layer in layers)),
        "WINDOW_METRES": windows.side * frame.gsd,
        "STRIDE_METRES": windows.stride * frame.gsd,
        "CLASS_RULE": _class_rule(d),
        "CLASSES": legend_tag(d.classes, colours),
    }
    if dates := sorted({layer.date for layer in layers if layer.date}):
        tags["ACQUIRED"] = ", ".join(dates)
    return {name: str(value) for name, value in tags.items()}
