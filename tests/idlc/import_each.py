"""Import every module of packages, each package in a process of its own: `import_each.py FOLDER PACKAGE…`.

A process knows one `.proto` file of a name, and the corpus has many of the same. Not a test: test_proto_corpus.py starts it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path


def main(folder: str, packages: list[str]) -> int:
    """The exit status: 1 if any could not be imported."""
    from weego import stub  # what all of them import

    stub.proto_file  # noqa: B018 - protobuf's runtime as well
    sys.path.insert(0, folder)
    failed = 0
    for package in packages:
        pid = os.fork()
        if pid == 0:
            try:
                for path in sorted(Path(folder, package).rglob("*.py")):
                    parts = path.relative_to(folder).with_suffix("").parts
                    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
            except BaseException:
                print(f"== {package}")
                traceback.print_exc(file=sys.stdout)
                sys.stdout.flush()
                os._exit(1)
            os._exit(0)
        failed |= os.waitpid(pid, 0)[1]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
