"""`landscale embed`: the features of patches, with labels and footprints, as a GeoParquet file."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, add_timeout, add_weights, print_result
from landscale.errors import BadInput


def add_command(add: AddCommand) -> None:
    parser = add(
        "embed",
        _embed_patches,
        "write the features of patches, with labels and footprints; run the same command again to resume",
        "landscale embed runs/eca ben.h5 features.parquet --split test",
    )
    add_weights(parser, "model")
    parser.add_argument("store", type=Path, metavar="STORE.h5", help="the patch store")
    parser.add_argument(
        "out", type=Path, metavar="OUT.parquet", help="the GeoParquet file to write, a row for each patch"
    )
    parser.add_argument(
        "--split",
        type=lambda word: word.split(","),
        help="such as test, or train,val (default: all patches)",
    )
    parser.add_argument("--batch", type=int, default=64, help="patches per batch (default: 64)")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _embed_patches(options: argparse.Namespace) -> int:
    from landscale.distributed import local_device, process_group
    from landscale.distributed.agreement import check_agreement
    from landscale.inference.embed import check_embedding_output, embed, embedded_rows
    from landscale.models.encoders import find_encoder, load_encoder
    from landscale.store import SPLITS, open_store

    if options.batch < 1:
        raise BadInput("--batch", f"found {options.batch}, expected at least 1")
    splits = options.split or SPLITS
    store = open_store(options.store)
    embedded_rows(store, splits)
    weights = find_encoder(options.model)
    check_embedding_output(options.out, [weights, options.store])
    model = load_encoder(weights)
    with process_group(options.timeout) as ranks:
        if ranks.world > 1:
            settings = {"weights": model.digest(), "store": store.fingerprint(), "OUT": str(options.out.resolve())}
            check_agreement(ranks, settings | {"--split": ",".join(splits), "--batch": str(options.batch)})
        written = embed(model.to(local_device(ranks)), store, options.out, splits, ranks=ranks, batch=options.batch)
    if not ranks.first:
        return 0
    return print_result(
        options,
        written.to_json(),
        lambda: print(f"{options.out}: {written.patches:,} patches, {written.width:,} features each"),
    )
