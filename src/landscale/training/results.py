"""The end of a training: thresholds are chosen, the model is scored, and weights and scores are written."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from landscale.distributed import Ranks
from landscale.errors import BadInput, reason
from landscale.inference.evaluate import evaluate, infer
from landscale.inference.metrics import Scores, choose_thresholds
from landscale.inference.pixel_scores import PixelScores
from landscale.loading import labelled_patches, targets_by_name
from landscale.models.classifier import Classifier
from landscale.models.input_units import Comparison
from landscale.models.shared_tensors import with_shared
from landscale.models.weights import save_weights
from landscale.runtime.documents import read_json, write_json
from landscale.store import PatchStore
from landscale.training.adapters import merge_adapters
from landscale.training.checkpoint import load_checkpoint
from landscale.training.recipe import Recipe
from landscale.training.runs import Run


def write_results(
    trained: Classifier,
    recipe: Recipe,
    store: PatchStore,
    run: Run,
    ranks: Ranks,
    device: torch.device,
    steps: dict[str, int] | None,
    compared: Comparison,
) -> Scores | PixelScores | None:
    """Choose thresholds on the val split, score it with all views, write weights and scores.

    Args:
        trained: without thresholds. It gets the weights of the best epoch, if the recipe selects one.
        recipe, store, run: of the training.
        ranks: they share the scoring, the first one writes.
        device: of the classifier.
        steps: of a training that a time limit has cut short (`TrainingState.cut_short`).
        compared: how pixels of the store become those that the classifier takes.

    Returns:
        The scores; None if the store has no val split or the network no classes.

    Raises:
        BadInput: the weights of the best epoch are damaged.
    """
    network, description, scores = trained.network, trained.description, None
    if recipe.select != "last" and run.best.exists():
        try:
            network.load_state_dict(with_shared(network, load_checkpoint(run.best, device)[0]))
        except RuntimeError as error:
            raise BadInput(run.best, f"does not fit this training ({reason(error)})") from None
    if recipe.lora:
        merge_adapters(network)
    if description.classes and store.has_split("val"):
        if description.multi_label:
            patches = labelled_patches(store, "val", description.classes)
            targets = targets_by_name(store, description.classes)[patches]
            thresholds = choose_thresholds(
                infer(trained, store, patches, ranks, show=False, factors=compared.factors), targets, recipe.thresholds
            )
            trained = trained.variant(network, recipe.views, tuple(float(t) for t in thresholds))
        scores = replace(evaluate(trained, store, "val", ranks, notes=False), steps=steps)
    if ranks.first:
        provenance = store.attributes["provenance"]
        figures = scores.to_json() if scores else {}
        about = {"recipe": recipe.name, "seed": recipe.seed, "settings": asdict(recipe), "store": provenance}
        about |= {"splits": store.split_sizes(), "scores": figures, "steps": steps}
        about["planes"] = {  # the native resolution of each band, for exports
            plane.key: {"bands": plane.bands, "side": plane.side}
            for plane in store.planes_for(description.bands, description.stored)
        }
        if (run.folder / "init.json").exists():
            about["init"] = read_json(run.folder / "init.json")
        save_weights(run.weights, trained, about | {"synthetic": bool(provenance.get("synthetic"))})
        write_json(run.folder / "scores.json", figures)
    return scores
