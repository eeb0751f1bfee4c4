"""The file that keys are in, as bytes: who may read it, whether it changed, and its replacement as a whole."""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from discovery.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024


class State(NamedTuple):
    """What differs when a file is another, or holds something else."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, about: os.stat_result) -> State:
        """Return the state in the answer of `stat`."""
        return cls(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def state_of(path: Path) -> State | None:
    """Return the state of the file that `path` leads to, through symbolic links, None if there is none to be had."""
    try:
        return State.of(path.stat())
    except OSError:
        return None


def read(path: Path) -> tuple[State, str]:
    """Return the file's state, as it was before its text was read, and the text.

    Raises:
        ConfigError: it cannot be read, or everybody can read or write it.
    """
    try:
        # A FIFO would wait here for a writer that never comes.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            _check(path, about)
            return State.of(about), file.read(MAX_FILE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the keys file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the keys file {path} is not UTF-8") from None


def read_if_any(path: Path) -> str:
    """Return the file's text, which is empty if there is no file; raises ConfigError as `read` does."""
    return read(path)[1] if state_of(path) is not None else ""


def make_folder(path: Path) -> None:
    """Make the folder of the file, and those above it, if they are missing: each for its owner alone.

    Raises:
        ConfigError: that cannot be done.
    """
    try:
        _make_private(path.parent)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path.parent}: {error.strerror}") from None


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keep other writers of the file out, in this process and others.

    It is the folder that is locked, because the file is another one after each change.

    Raises:
        ConfigError: the folder cannot be locked.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"cannot use the folder {path.parent}: {error.strerror}") from None
    try:
        _lock(folder, path.parent)
        yield
    finally:
        os.close(folder)


def replace(path: Path, text: str) -> None:
    """Put a whole file in the place of the one that is there, with its owner and mode, or mode 0600 if there is none.

    Raises:
        ConfigError: it cannot be written. What was there is still there.
    """
    try:
        _replace(path, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write the keys file {path}: {error.strerror}") from None


def _check(path: Path, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise ConfigError(f"the keys file {path} is no regular file")
    # A group may read it: that is how Kubernetes and systemd hand a file to a program that does not own it.
    if about.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(
            f"the keys file {path} is open to all users: chmod o-rwx {shlex.quote(str(path))},"
            " or defaultMode: 0440 for a Kubernetes Secret"
        )
    if about.st_size > MAX_FILE_BYTES:
        raise ConfigError(f"the keys file {path} is larger than {MAX_FILE_BYTES} bytes")


def _lock(folder: int, path: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError as error:
        raise ConfigError(f"cannot lock the folder {path}: {error.strerror}") from None


def _make_private(folder: Path) -> None:
    """Make `folder` and those above it that are missing, for this user alone: `parents=True` would open those."""
    if not folder.exists():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            _inherit(path, handle)
            file.flush()
            # The secret is shown once: what it opens must not be gone with the power.
            os.fsync(handle)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    _sync(path.parent)


def _inherit(path: Path, handle: int) -> None:
    """Give the new file the old one's owner and mode: a server that could read that must be able to read this."""
    with suppress(FileNotFoundError):
        old, new = path.stat(), os.fstat(handle)
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(handle, old.st_uid, old.st_gid)
        os.fchmod(handle, stat.S_IMODE(old.st_mode))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
