"""The one writer: a file appears whole or not at all, and lasts."""

import contextlib
import os
import stat
from pathlib import Path

from lintransformer.checks import InputError


def write_file(path, data):
    """Write bytes or text to a file, whole or not at all, and make it last (fsync of file and folder).

    Folders that are missing are made. A new file has the umask's mode, one that is replaced keeps its own; a link at
    the path itself is replaced, never followed.

    Raises
    ------
    InputError : the disk is full or read-only, or the path cannot be written; the old file, if any, is untouched.

    Returns the path.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")            # two processes never share one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(mode := path.lstat().st_mode):
                    os.chmod(temporary, stat.S_IMODE(mode))
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if hasattr(os, "O_DIRECTORY"):                                       # Windows cannot open a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def write_where_it_leads(path, data):
    """Write text to a path that a user names: a pipe or a device is written through, a link stays a link.

    Raises
    ------
    InputError : as for `write_file`.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:                                                # a new file, also at the end of a link
        return write_file(os.path.realpath(path), data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    regular = stat.S_ISREG(found.st_mode)
    if regular and not _is_standard_stream(found):
        return write_file(os.path.realpath(path), data)
    try:
        with open(path, "a" if regular else "w", encoding="utf-8") as file:  # what was printed there stays
            file.write(data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _is_standard_stream(found):
    """Whether this process's standard output or error goes there, as in ``--json /dev/stdout > FILE``."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(found, os.fstat(number)):
                return True
    return False
