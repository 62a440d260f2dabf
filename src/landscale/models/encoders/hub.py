"""Files of the Hugging Face hub. The variables HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are respected."""

from __future__ import annotations

from pathlib import Path

from landscale.errors import LandscaleError, reason


def hub_file(repository: str, file: str, revision: str | None = None, otherwise: str = "") -> Path:
    """The path of a file in the hub's cache, downloaded if it is not there.

    Args:
        repository: owner/name.
        file: its name.
        revision: a branch, tag or commit; None: the newest.
        otherwise: what to do if the repository lacks the file, for the error message.

    Raises:
        LandscaleError: the hub cannot be reached, or has no such repository, revision or file.
    """
    from huggingface_hub import constants, errors, hf_hub_download  # imported here, because it takes half a second

    where = f"{repository} on {constants.ENDPOINT}"
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except errors.LocalEntryNotFoundError as error:
        raise LandscaleError(f"{where}: cannot be reached ({reason(error.__cause__ or error)})") from None
    except errors.GatedRepoError:
        raise LandscaleError(
            f"{where}: access is restricted by the owner; request it on the hub, then run `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise LandscaleError(f"{where}: is neither a local file or folder nor a repository of the hub") from None
    except errors.RevisionNotFoundError:
        raise LandscaleError(f"{where}: has no revision {revision}") from None
    except errors.EntryNotFoundError:
        raise LandscaleError(f"{where}: has no {file}{otherwise and f'; {otherwise}'}") from None
    except Exception as error:  # the hub's transport, and what it raises, differs between its versions
        raise LandscaleError(f"{where}: {file} could not be fetched ({reason(error)})") from None
