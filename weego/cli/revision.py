"""IDL files as they were in a git revision, for comparing with what they are now."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["GitError", "Tree", "checkout"]


class GitError(Exception):
    """git is not there, this is no repository, or it has no such revision."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The IDL files of a revision, in a folder of their own."""

    repository: str
    folder: str

    def path(self, now: str) -> str:
        """Where a file or folder of the repository lies in the revision; one outside of it stays what it is."""
        inside = os.path.relpath(os.path.realpath(now), self.repository)
        return now if inside.startswith("..") else os.path.join(self.folder, inside)


@contextmanager
def checkout(revision: str, folder: str) -> Iterator[Tree]:
    """All `.thrift` and `.proto` files of the repository around `folder`, as of `revision`. Raises GitError."""
    repository = _git(folder or ".", "rev-parse", "--show-toplevel").decode().strip()
    commit = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    names = _git(repository, "ls-tree", "-r", "-z", "--name-only", commit).decode(errors="surrogateescape").split("\0")
    wanted = [name for name in names if name.endswith((".thrift", ".proto"))]
    with tempfile.TemporaryDirectory(prefix="weego-") as place:
        if wanted:
            archive = _git(repository, "archive", "--format=tar", commit, "--", *wanted)
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(place, filter="data")
        yield Tree(os.path.realpath(repository), place)


def _git(folder: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise GitError("git is not installed, so there are no revisions to compare with") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0].removeprefix("fatal: ")
        if arguments[0] == "rev-parse" and "--verify" in arguments:
            said = f"no revision {arguments[-1].removesuffix('^{commit}')!r} in {folder}"
        raise GitError(said or f"git {arguments[0]} failed")
    return done.stdout
