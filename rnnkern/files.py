"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Optional, Union

PathLike = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

LINKED = ".rnnkern-"
"""The beginning of the name of a new file at the last moment."""
OPEN_FILES = "/proc/self/fd"


def check_path(path: PathLike) -> str:
    """A path as text; a TypeError or ValueError that says `path` otherwise."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path: expected str, bytes or os.PathLike, got {type(path).__name__}") from None
    if "\0" in name:
        raise ValueError(f"path: expected a file's name, got one with a null character, {name!r}")
    return name


def regular_file(name: str) -> Optional[os.stat_result]:
    """What the system says of a file; None if there is none. An OSError for a folder, a FIFO or a device."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "Expected a regular file, there is a FIFO, socket or device", name)
    return found


@contextmanager
def whole(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its place at `path` only when the block ends without an exception.

    A file that was there before is replaced; its permissions stay, and its owner where we may. One that may not be
    written is not replaced. A symbolic link is followed.

    However the process ends, there is the old file or the new one. The new one has a name of its own in the same folder
    only between two system calls at the end; what a process that was killed just then has left, the next one removes.
    Where there is no O_TMPFILE, as on macOS and NFS, a process that is killed leaves its ``.rnnkern_...``.

    Raises
    ------
    OSError
        Naming `path`, if it can't be written.
    """
    name = check_path(path)
    with naming(name):
        old = regular_file(name)
        if old is None and not os.path.basename(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if old is not None and not os.access(name, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        parent, last = os.path.split(os.path.realpath(name))
        folder = os.open(parent, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
    try:
        with naming(name):
            new = NewFile(folder, 0o666 if old is None else 0o600)
        try:
            with naming(name, only_nameless=True), os.fdopen(new.fd, "wb") as file:
                yield file
                with naming(name):
                    file.flush()
                    if old is not None:
                        keep_rights(new.fd, old)
                    os.fsync(new.fd)
                    new.move_to(last)
        except BaseException:
            new.remove()
            raise
    finally:
        os.close(folder)


@contextmanager
def naming(name: str, only_nameless: bool = False) -> Iterator[None]:
    """Let an OSError name the file that the user gave, not the folder or a file that he doesn't know of."""
    try:
        yield
    except OSError as error:
        if only_nameless and error.filename:
            raise
        raise OSError(error.errno, error.strerror or str(error), name) from error


def keep_rights(fd: int, old: os.stat_result) -> None:
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(OSError):
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode) & 0o777)


class NewFile:
    """A file of a folder that gets a name as late as the system allows.

    Parameters
    ----------
    folder : int
        Descriptor of the folder.
    mode : int
        Permissions, of which the process's umask takes some.
    """

    def __init__(self, folder: int, mode: int) -> None:
        self._folder = folder
        try:
            if not os.path.isdir(OPEN_FILES):
                raise FileNotFoundError
            self.fd = os.open(".", os.O_TMPFILE | os.O_WRONLY, mode, dir_fd=folder)
        except (AttributeError, OSError):  # not all systems and file systems have it
            self._name = f".rnnkern_{secrets.token_hex(8)}"
            self.fd = os.open(self._name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode, dir_fd=folder)
            self._named = True
        else:
            self._name = f"{LINKED}{secrets.token_hex(8)}"
            self._named = False
            with contextlib.suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_EX)
                remove_abandoned(folder)

    def move_to(self, last: str) -> None:
        """Take the place of the folder's file of this name, while still open."""
        if not self._named:  # with dst_dir_fd Python follows the link
            os.link(f"{OPEN_FILES}/{self.fd}", self._name, dst_dir_fd=self._folder)
            self._named = True
        os.replace(self._name, last, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._named = False

    def remove(self) -> None:
        if self._named:
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)


def remove_abandoned(folder: int) -> None:
    """Remove what processes have left that were killed between `os.link` and `os.replace`: nobody holds its lock."""
    for name in os.listdir(f"{OPEN_FILES}/{folder}"):  # which, unlike its descriptor, can be listed
        if name.startswith(LINKED):
            with contextlib.suppress(OSError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=folder)  # which a process that has just finished has renamed
                finally:
                    os.close(fd)
