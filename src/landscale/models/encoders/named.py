"""From the name of weights to their folder: looked up in the tables, fetched, and converted into the cache."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

from landscale.download.transfer import RetryPolicy, fetch, remote_size
from landscale.errors import BadInput, UnknownName
from landscale.models.encoders import bundled, hub_weights, reben, timm_weights, torchgeo
from landscale.models.encoders.cache import cache_folder, cached_weights
from landscale.models.encoders.conversion import save_converted
from landscale.models.encoders.entry import Entry
from landscale.models.encoders.pickled import check_digest, read_pickled
from landscale.runtime.progress import print_notes, progress_bar

_HUB = "https://huggingface.co"
RETRIES = RetryPolicy(failures=3)


def find(name: str) -> Path:
    """The folder of weights of a name that begins with a kind. Arguments and errors are those of `find_encoder`."""
    kind, _, rest = name.partition(":")
    if kind == bundled.KIND:
        return bundled.find(name)
    if kind == timm_weights.KIND:
        entry = timm_weights.find(name)
        return cached_weights(name, _facts(entry), partial(timm_weights.save_timm, entry))
    if kind == torchgeo.KIND:
        return _torchgeo(name)
    if found := hub_weights.find_reben(name):
        entry, revision = found
        make = partial(hub_weights.save_reben, entry, revision)
        return cached_weights(name, _facts(entry), make)
    if rest.startswith(f"{reben.OWNER}/"):
        raise UnknownName("classifier of reBEN", name, reben.entries())
    return hub_weights.fetch_folder(name)


def _facts(entry: Entry) -> str:
    return json.dumps(asdict(entry), sort_keys=True)


def _torchgeo(name: str) -> Path:
    name, separator, file = name.partition("=")
    known = torchgeo.entries()
    if name not in known:
        raise UnknownName("weights of TorchGeo", name, known)
    entry = known[name]
    if separator:
        path = Path(file)
        digest = check_digest(path, entry.digest)
        return cached_weights(name, f"{_facts(entry)}\n{digest}", partial(_convert, entry, path))
    if not entry.digest:
        raise BadInput(
            name,
            f"is not fetched, because its publisher gives no digest of it; download {entry.url} and give {name}=FILE",
        )
    return cached_weights(name, _facts(entry), partial(_fetch_and_convert, entry))


def _fetch_and_convert(entry: Entry, folder: Path) -> None:
    path = cache_folder() / "downloads" / entry.url.rpartition("/")[2]
    url = entry.url.replace(_HUB, os.environ.get("HF_ENDPOINT", _HUB), 1)  # a mirror of the hub
    print_notes([f"{entry.name}: from {url}, licence: {entry.licence}"])
    try:
        size = remote_size(url, RETRIES)
        with progress_bar("download", size or 0, "bytes") as advance:
            fetch(url, path, entry.digest, size, RETRIES, advance)
    except BadInput as error:
        raise BadInput(error.path, f"{error.problem}; or download it elsewhere and give {entry.name}=FILE") from None
    _convert(entry, path, folder)
    path.unlink()  # the folder of weights has everything of it


def _convert(entry: Entry, path: Path, folder: Path) -> None:
    digest = check_digest(path, entry.digest)  # of this very file, before anything in it is unpickled
    save_converted(folder, entry, read_pickled(path), path, digest)
