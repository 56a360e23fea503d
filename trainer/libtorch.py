#!/usr/bin/env python3
"""Bring libtorch into the user's cache folder, and print the folder that LIBTORCH is to name.

The wheels named in libtorch.txt (and libtorch-cuda.txt with --cuda) are downloaded with pip, which compares their
SHA-256; of them only headers, the libraries that the trainer loads, and licences are unpacked. What is there
already is left alone. Standard library only.
"""
import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "2.11.0"

CPU = r"torch/lib/(libtorch|libtorch_cpu|libc10)\.so|torch/lib/libgomp\.so\.1"
CUDA = r"torch/lib/(libtorch_cuda|libtorch_cuda_linalg|libtorch_nvshmem|libc10_cuda|libcaffe2_nvrtc)\.so"
ALWAYS = r"torch/include/.*|nvidia/.*/lib/[^/]*\.so[^/]*|[^/]*\.dist-info/(licenses/.*|LICENSE.*|NOTICE.*|License.*)"


class SetupError(Exception):
    """A failure that one sentence explains."""


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "evenkeel"


def check_platform() -> None:
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise SetupError(
            f"libtorch is pinned for Linux x86_64 only, and this is {system} {machine}: install PyTorch {VERSION} "
            "and set LIBTORCH to its torch directory."
        )


def download(requirements: Path, folder: Path) -> None:
    """The wheels are those of one Python version, whichever one runs this: nothing of Python is used."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    target = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]
    for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_25", "manylinux_2_18", "manylinux2014"):
        target += ["--platform", f"{tag}_x86_64"]
    done = subprocess.run(
        [*command, *target, "--no-cache-dir", "--dest", str(folder), "-r", str(requirements)], stdout=sys.stderr
    )
    if done.returncode != 0:
        raise SetupError(f"pip could not download what {requirements.name} names (exit status {done.returncode}).")


def unpack(wheels: Path, into: Path, wanted: "re.Pattern[str]") -> None:
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if wanted.fullmatch(name) and not name.endswith("/"):
                    archive.extract(name, into)
        wheel.unlink()


def bring(into: Path, cuda: bool) -> None:
    """Unpack beside the target, then rename: what is there is complete."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        wheels, unpacked = Path(folder) / "wheels", Path(folder) / "unpacked"
        wanted = re.compile("|".join([CPU, ALWAYS] + ([CUDA] if cuda else [])))
        for requirements in ["libtorch.txt"] + (["libtorch-cuda.txt"] if cuda else []):
            download(HERE / requirements, wheels)
        unpack(wheels, unpacked, wanted)
        # torch-sys compares it with the version that it binds.
        (unpacked / "torch" / "build-version").write_text(VERSION + "\n")
        try:
            unpacked.rename(into)
        except OSError:
            # Somebody else was faster, or an unfinished folder of an older version stands there.
            if not (into / "torch" / "build-version").is_file():
                shutil.rmtree(into)
                unpacked.rename(into)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="also what training on a GPU needs")
    cuda = parser.parse_args().cuda
    into = cache() / f"libtorch-{VERSION}{'-cuda' if cuda else ''}"
    try:
        check_platform()
        if not (into / "torch" / "build-version").is_file():
            bring(into, cuda)
    except (SetupError, OSError, zipfile.BadZipFile) as error:
        print(f"libtorch.py: {error}", file=sys.stderr)
        return 1
    print(into / "torch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
