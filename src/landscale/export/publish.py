"""Publish a folder of weights on the Hugging Face hub, exactly as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from landscale.errors import BadInput, LandscaleError, reason
from landscale.models.weights import check_weights
from landscale.runtime.sealed_config import CONFIG, FORMAT


@dataclass(frozen=True)
class Published:
    """repository: `owner/name`. commit: of the hub. url: of the commit."""

    repository: str
    commit: str
    url: str

    @property
    def name(self) -> str:
        """The name under which these very bytes are loaded."""
        return f"hf-hub:{self.repository}@{self.commit}"


def publish_weights(folder: Path, repository: str, *, private: bool = False, revision: str | None = None) -> Published:
    """Upload a folder that `landscale export` wrote. The repository then has its files and no others.

    The variables HF_ENDPOINT, HF_TOKEN and HF_HOME are respected, and so is `hf auth login`.

    Args:
        folder: the folder of weights.
        repository: `owner/name`; created if it does not exist.
        private: whether a repository that is created is private.
        revision: branch to upload to; created if it does not exist; None: main.

    Raises:
        BadInput: the folder is damaged, or export did not write it. LandscaleError: the hub cannot be reached or refuses.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise LandscaleError(f"publish: found '{repository}', expected owner/name")
    config = check_weights(folder)
    if not (folder / CONFIG).is_file() or config["landscale_format"] < FORMAT or not config.get("exported"):
        raise BadInput(
            folder, "was not written by landscale export, so it may lack a licence and scores; export it first"
        )
    from huggingface_hub import HfApi, constants, errors  # imported here, because it takes half a second

    where = f"{repository} on {constants.ENDPOINT}"
    try:
        api = HfApi(library_name="landscale")
        api.create_repo(repository, private=private or None, exist_ok=True)  # None: the default of the owner
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            allow_patterns=[CONFIG, *config["files"]],
            delete_patterns="*",  # of an older publication: weights with a left over file are refused
            commit_message=f"Weights of {config['model']}, digest {config['digest'][:12]}",
        )
    except errors.LocalTokenNotFoundError:
        raise LandscaleError(f"{where}: needs a token; run `hf auth login` or set HF_TOKEN") from None
    except errors.HfHubHTTPError as error:
        raise LandscaleError(f"{where}: refused ({_status(error)})") from None
    except Exception as error:  # the hub's transport, and what it raises, differs between its versions
        raise LandscaleError(f"{where}: could not be reached or refused the files ({reason(error)})") from None
    return Published(repository, done.oid, done.commit_url)


def _status(error: Exception) -> str:
    """The status of the hub's answer with its meaning, and its message."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    meaning = {
        401: "no valid token; run `hf auth login` or set HF_TOKEN",
        403: "the token may not write there",
        404: "no such repository",
    }.get(code or 0, reason(error))
    return f"HTTP {code}: {meaning}"
