"""The disk of the development origin: a folder of buckets, objects that are replaced whole.

Rules
- Everything here blocks; the service calls what may take long in a thread.
- An object is opened once: its size, ETag and bytes all come from that descriptor, whatever happens
  to the path.
- A write is a temporary file in the bucket's reserved corner, renamed into place. No fsync: this is
  for development.
- Each write gets a modification time of its own, so that (path, inode, size, mtime) never names two
  contents.

Story: `open` finds a key at its plain path or at its odd one (keys); `Upload` receives a
new object and `commit` puts it where it can lie; `delete` prunes folders that became empty, as S3
has none; `keys` walks the tree.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from cachesvc.devorigin.http import S3Error
from cachesvc.devorigin.keys import (
    MAX_KEY_BYTES,
    RESERVED,
    is_bucket_name,
    odd_key,
    odd_parts,
    plain_parts,
)

_READ_BYTES = 1 << 20
_SETTLED_NS = 100_000_000  # a file younger than this may change within one tick of its clock
_MAX_ETAGS = 1_000_000
_HASH_LOCKS = 16

_FileId = tuple[str, int, int, int]


class OpenObject:
    """One content of one object, held by its descriptor. A context manager."""

    def __init__(self, path: str, file: FileIO, status: os.stat_result) -> None:
        self.file = file
        self.size_bytes = status.st_size
        self.modified_s = status.st_mtime_ns // 1_000_000_000
        self.modified_ns = status.st_mtime_ns
        self.file_id: _FileId = (path, status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self, offset: int, length_bytes: int) -> bytes:
        """Those bytes, or fewer at the end of the file."""
        return os.pread(self.file.fileno(), length_bytes, offset)

    def close(self) -> None:
        """Give the descriptor back."""
        self.file.close()

    def __enter__(self) -> OpenObject:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Folder:
    """Buckets and objects below `root`. Any thread may call.

    Raises:
        NotADirectoryError: root is no folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise NotADirectoryError(f"root {root} is not a folder: create it or name another")
        self._root = root.resolve()
        self._lock = threading.Lock()  # held by whatever changes the tree
        self._last_mtime_ns = 0
        self._etags: dict[_FileId, str] = {}
        self._hash_locks = [threading.Lock() for _ in range(_HASH_LOCKS)]

    def buckets(self) -> list[tuple[str, float]]:
        """Name and modification time (Unix seconds) of each bucket, by name."""
        with os.scandir(self._root) as entries:
            return sorted(
                (entry.name, entry.stat().st_mtime)
                for entry in entries
                if _is_text(entry.name) and is_bucket_name(entry.name) and entry.is_dir()
            )

    def bucket(self, bucket: str) -> Path:
        """The bucket's folder.

        Raises:
            S3Error: 404 NoSuchBucket.
        """
        path = self._root / bucket
        if not is_bucket_name(bucket) or not path.is_dir():
            raise S3Error(404, "NoSuchBucket", f"The specified bucket does not exist: {bucket}")
        return path

    def create_bucket(self, bucket: str) -> None:
        """Make it, or leave it as it is.

        Raises:
            S3Error: 400 InvalidBucketName.
        """
        if not is_bucket_name(bucket):
            raise S3Error(400, "InvalidBucketName", f"The specified bucket is not valid: {bucket}")
        with self._lock:
            (self._root / bucket).mkdir(exist_ok=True)

    def delete_bucket(self, bucket: str) -> None:
        """Remove an empty bucket.

        Raises:
            S3Error: 404 NoSuchBucket, 409 BucketNotEmpty.
        """
        path = self.bucket(bucket)
        with self._lock:
            try:
                for folder, _, _ in os.walk(path, topdown=False):
                    os.rmdir(folder)
            except OSError as error:
                text = f"The bucket you tried to delete is not empty: {bucket}"
                raise S3Error(409, "BucketNotEmpty", text) from error

    def open(self, bucket: str, key: str) -> OpenObject:
        """The object as it is now.

        Raises:
            S3Error: 404 NoSuchBucket or NoSuchKey, 403 AccessDenied for a file that can't be read.
        """
        folder = self.bucket(bucket)
        paths = _paths(folder, key)
        for path in (*paths, paths[0]):  # the first again: a write may have moved it meanwhile
            if opened := _open_file(path):
                return opened
        raise S3Error(404, "NoSuchKey", f"The specified key does not exist: {key}")

    def known_etag(self, opened: OpenObject) -> str | None:
        """The ETag where no byte has to be read for it."""
        return self._etags.get(opened.file_id)

    def etag(self, opened: OpenObject) -> str:
        """The quoted MD5 of the content; reads the whole file the first time."""
        lock = self._hash_locks[hash(opened.file_id) % _HASH_LOCKS]
        with lock:
            etag = self._etags.get(opened.file_id)
            if etag is None:
                etag = _hash(opened)
                if opened.modified_ns < time.time_ns() - _SETTLED_NS:
                    self._remember(opened.file_id, etag)
        return etag

    def upload(self, bucket: str) -> Upload:
        """A new object's file, not yet under any key.

        Raises:
            S3Error: 404 NoSuchBucket.
        """
        folder = self.bucket(bucket) / RESERVED / "tmp"
        with self._lock:
            folder.mkdir(parents=True, exist_ok=True)
            return Upload(folder / uuid.uuid4().hex)

    def commit(
        self,
        upload: Upload,
        bucket: str,
        key: str,
        allow: Callable[[str | None], None] | None = None,
    ) -> str:
        """Make the uploaded bytes the object, in one step, and return its ETag.

        allow: called with the present ETag (None: no object) in the same step; raises to refuse.

        Raises:
            S3Error: 404 NoSuchBucket; whatever `allow` raises.
        """
        etag = upload.finish()
        with self._lock:
            if allow:
                allow(self._present_etag(bucket, key))
            self._last_mtime_ns = max(time.time_ns(), self._last_mtime_ns + 1)
            os.utime(upload.path, ns=(self._last_mtime_ns, self._last_mtime_ns))
            status = os.stat(upload.path)
            path = self._place(upload.path, self.bucket(bucket), key)
            self._remember((path, status.st_ino, status.st_size, status.st_mtime_ns), etag)
        return etag

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object if it is there.

        Raises:
            S3Error: 404 NoSuchBucket.
        """
        folder = self.bucket(bucket)
        with self._lock:
            for path in _paths(folder, key):
                _unlink(path, folder)

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """All keys with that prefix, in UTF-8 byte order. A file not named in UTF-8 has no key.

        Raises:
            S3Error: 404 NoSuchBucket.
        """
        folder = self.bucket(bucket)
        found = {key for key in _plain_keys(folder, prefix) if key.startswith(prefix)}
        found.update(key for key in _odd_keys(folder) if key.startswith(prefix))
        return sorted(found)  # code points sort as their UTF-8 bytes do

    def _present_etag(self, bucket: str, key: str) -> str | None:
        try:
            with self.open(bucket, key) as opened:
                return self.etag(opened)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise

    def _place(self, source: Path, folder: Path, key: str) -> str:
        *plain, odd = _paths(folder, key)
        for path in plain:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(source, path)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue
            _unlink(odd, folder)
            return path
        os.makedirs(os.path.dirname(odd), exist_ok=True)
        os.replace(source, odd)
        return odd

    def _remember(self, file_id: _FileId, etag: str) -> None:
        if len(self._etags) >= _MAX_ETAGS:
            self._etags.clear()
        self._etags[file_id] = etag


class Upload:
    """The bytes of an object on their way in; closing it without a commit leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length_bytes = 0
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        self._md5 = hashlib.md5(usedforsecurity=False)

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        view = memoryview(data)
        self._md5.update(view)
        self.length_bytes += len(view)
        while view:
            view = view[self._file.write(view) :]

    def finish(self) -> str:
        """Close the file and return its ETag."""
        self._file.close()
        return f'"{self._md5.hexdigest()}"'

    def close(self) -> None:
        """Give the file up, unless it has been committed."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _paths(folder: Path, key: str) -> list[str]:
    plain = plain_parts(key)
    odd = os.path.join(folder, *odd_parts(key))
    return [odd] if plain is None else [os.path.join(folder, *plain), odd]


def _open_file(path: str) -> OpenObject | None:
    try:
        file = FileIO(path, "rb", opener=_open_readable)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except PermissionError as error:
        raise S3Error(403, "AccessDenied", f"Access Denied: {error}") from error
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        return None
    return OpenObject(path, file, status)


def _open_readable(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO must not hold the service up


def _unlink(path: str, folder: Path) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    parent = os.path.dirname(path)
    while parent != str(folder):
        try:
            os.rmdir(parent)
        except OSError:
            return
        parent = os.path.dirname(parent)


def _hash(opened: OpenObject) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    offset = 0
    while data := opened.read(offset, _READ_BYTES):
        digest.update(data)
        offset += len(data)
    return f'"{digest.hexdigest()}"'


def _plain_keys(folder: Path, prefix: str) -> Iterator[str]:
    """Keys in the branches that the prefix can meet; links to folders are followed, circles not."""
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        base, ancestors = pending.pop()
        try:
            status = os.stat(folder / base)
            entries = list(os.scandir(folder / base))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        here = (status.st_dev, status.st_ino)
        if here in ancestors:
            continue
        for entry in entries:
            key = base + entry.name
            if not _is_text(key) or len(key.encode()) > MAX_KEY_BYTES or key == RESERVED:
                continue
            if entry.is_file():
                yield key
            elif prefix.startswith(key + "/") or (key + "/").startswith(prefix):
                pending.append((key + "/", (*ancestors, here)))


def _odd_keys(folder: Path) -> Iterator[str]:
    base = folder / RESERVED
    for parent, _, names in os.walk(base):
        pieces = Path(parent).relative_to(base).parts
        for name in names:
            if _is_text(name) and (key := odd_key((*pieces, name))) is not None:
                yield key


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
