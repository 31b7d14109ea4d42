"""How a checkpoint is fetched from the Hugging Face hub, and how one that is there is found without it.

The hub's client keeps its own cache layout, resumes broken downloads and honours HF_TOKEN and HF_ENDPOINT.
What it does not promise is that a snapshot is whole, so a record is written after the last file has arrived;
only a repository with a record whose files are all there counts as present.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mezzo import __version__
from mezzo.kit.files import replace_json
from mezzo.weights.cache import disk_errors, exclusive, require_free_space
from mezzo.weights.errors import WeightsError
from mezzo.weights.folder import COMPANIONS, INDEX, NATIVE_INDEX, CheckpointFolder, missing_files
from mezzo.weights.progress import Advance, Progress

WANTED = ("config.json", "params.json", "*.safetensors", INDEX, NATIVE_INDEX, *COMPANIONS)
LOOK_EVERY_S = 0.25
NETWORK_LIBRARIES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"})
GIVE_FOLDER = "or give a checkpoint folder that is already on this machine with --weights FOLDER."


@dataclass(frozen=True)
class HubRepository:
    """A repository of the hub at a branch, tag or commit: `ORG/NAME`, `ORG/NAME@REVISION`."""

    repository: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.repository if self.revision == "main" else f"{self.repository}@{self.revision}"

    @property
    def key(self) -> str:
        """Return a file name that no other repository or revision has."""
        return quote(f"{self.repository}@{self.revision}", safe="@")


def find_in_hub_cache(wanted: HubRepository, home: Path) -> CheckpointFolder | None:
    """Return the snapshot if it was fetched to the end and all its files are still there. No network."""
    try:
        record = json.loads(_record_path(wanted, home).read_text(encoding="utf-8"))
        path = _storage(wanted, home) / "snapshots" / record["commit"]
        if any((path / name).stat().st_size != num_bytes for name, num_bytes in record["files"].items()):
            return None
        return CheckpointFolder(path, str(wanted), record["description"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def fetch_from_hub(wanted: HubRepository, home: Path, progress: Progress) -> CheckpointFolder:
    """Download what is missing of the repository. Raises: WeightsError."""
    with disk_errors(home), exclusive(home, wanted.key, progress):
        if found := find_in_hub_cache(wanted, home):
            return found
        with _hub_errors(wanted):
            _download(wanted, home, progress)
        if found := find_in_hub_cache(wanted, home):
            return found
        raise WeightsError(
            f"The download of {wanted} ended early.", hint="Try again: it goes on where it stopped."
        )


def choose_files(sizes: dict[str, int]) -> dict[str, int]:
    """Choose what to download of a repository's files (name -> bytes).

    Only the top folder, never pickles, and one copy of the weights: Mistral's repositories hold them twice,
    and `consolidated*` is left out where the Hugging Face layout is complete.
    """
    chosen = {
        name: size
        for name, size in sizes.items()
        if "/" not in name and any(fnmatchcase(name, pattern) for pattern in WANTED)
    }
    if INDEX in chosen or "model.safetensors" in chosen:
        return {name: size for name, size in chosen.items() if not name.startswith("consolidated")}
    return chosen


def _download(wanted: HubRepository, home: Path, progress: Progress) -> None:
    import huggingface_hub  # noqa: PLC0415 - not needed where the weights are already there
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined] # noqa: PLC0415

    disable_progress_bars()  # ours is drawn
    cache = home / "hub"
    cache.mkdir(parents=True, exist_ok=True)
    hub = huggingface_hub.HfApi(library_name="mezzo", library_version=__version__)
    info = hub.model_info(wanted.repository, revision=wanted.revision, files_metadata=True)
    files = choose_files({file.rfilename: file.size or 0 for file in info.siblings or []})
    if not any(name.endswith(".safetensors") for name in files):
        raise WeightsError(
            f"{wanted} has no *.safetensors files, and mezzo loads no other format from the hub.",
            hint="Look for a repository of the same model with safetensors (pickle files can run code).",
        )
    num_bytes = sum(files.values())
    storage = _storage(wanted, home)
    require_free_space(home, num_bytes - _size_of_blobs(storage))
    with progress.stage(f"Downloading {wanted}", num_bytes) as advance, _watching(storage, advance):
        path = hub.snapshot_download(
            wanted.repository,
            revision=info.sha,
            cache_dir=cache,
            allow_patterns=[_literal(name) for name in files],
        )
    if missing := missing_files(Path(path)):
        raise WeightsError(
            f"{wanted} is not a checkpoint that mezzo can load: it lacks {', '.join(missing)}."
        )
    license_name = _license(info)
    record = {
        "repository": wanted.repository,
        "revision": wanted.revision,
        "commit": info.sha,
        "description": f"{wanted} ({license_name})" if license_name else str(wanted),
        "files": {name: (Path(path) / name).stat().st_size for name in files},
    }
    replace_json(_record_path(wanted, home), record)


@contextmanager
def _hub_errors(wanted: HubRepository) -> Iterator[None]:
    """Turn what the hub's client raises into one sentence each; a full disk passes through."""
    from huggingface_hub import errors  # noqa: PLC0415 - not needed where the weights are already there

    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{wanted} is gated: its licence has to be accepted with a Hugging Face account first.",
            hint="Accept it on the model's page, then set HF_TOKEN to a token of that account.",
            detail=_last_line(error),
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(
            f"{wanted.repository} has no revision {wanted.revision} on the Hugging Face hub.",
            hint="Check the branch, tag or commit after the @.",
            detail=_last_line(error),
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{wanted.repository} does not exist on the Hugging Face hub, or this machine may not see it.",
            hint="Check the spelling; for a private repository set HF_TOKEN.",
            detail=_last_line(error),
        ) from error
    except errors.HFValidationError as error:
        raise WeightsError(f"{wanted} is not a name that the Hugging Face hub can have: {error}") from error
    except errors.HfHubHTTPError as error:
        raise WeightsError(
            f"The Hugging Face hub answered {error.response.status_code} when asked for {wanted}.",
            hint="Check HF_TOKEN for 401 and 403; wait a little for anything else, then try again.",
            detail=_last_line(error),
        ) from error
    except Exception as error:
        if _is_network_trouble(error):
            raise WeightsError(
                f"No network: the Hugging Face hub could not be reached for {wanted}.",
                hint=f"Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then try again, {GIVE_FOLDER}",
                detail=_last_line(error),
            ) from error
        if isinstance(error, WeightsError | OSError):
            raise
        raise WeightsError(
            f"The Hugging Face client failed while it fetched {wanted}.",
            hint="Try again: it goes on where it stopped.",
            detail=_last_line(error),
        ) from error


def _is_network_trouble(error: BaseException | None) -> bool:
    """Tell for an error, or one that caused it. The client's HTTP library differs between its versions."""
    while error is not None:
        library = type(error).__module__.partition(".")[0]
        if isinstance(error, ConnectionError | TimeoutError) or library in NETWORK_LIBRARIES:
            return True
        if type(error).__name__ in {"LocalEntryNotFoundError", "IncompleteSnapshotError"}:
            return True
        error = error.__cause__
    return False


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def _license(info: Any) -> str | None:
    card = info.card_data
    return str(card["license"]) if card is not None and card.get("license") else None


def _literal(name: str) -> str:
    """Quote a file name for use as a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _record_path(wanted: HubRepository, home: Path) -> Path:
    return home / "pulls" / f"{wanted.key}.json"


def _storage(wanted: HubRepository, home: Path) -> Path:
    return home / "hub" / f"models--{wanted.repository.replace('/', '--')}"


def _size_of_blobs(storage: Path) -> int:
    total = 0
    for blob in (storage / "blobs").glob("*"):
        try:
            total += blob.stat().st_size
        except FileNotFoundError:  # renamed as it became complete
            continue
    return total


@contextmanager
def _watching(storage: Path, advance: Advance) -> Iterator[None]:
    """Report how the downloaded files grow: how the client itself tells differs between its versions."""
    stopped = threading.Event()

    def watch() -> None:
        seen = 0
        while True:
            is_last = stopped.wait(LOOK_EVERY_S)
            now = _size_of_blobs(storage)
            if now > seen:
                advance(now - seen)
                seen = now
            if is_last:
                return

    thread = threading.Thread(target=watch, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
