#!/usr/bin/env python3
"""How fast training is: speed.py PYTHON [THREADS], with a PYTHON that has torch and transformers.

A training step of MiniLM, with sentences of four lengths (a fifth of such a batch is filling) and of one, and a step of an FNO and of a UNet,
beside PyTorch's eager step, in turns; what spectra cost with --spectra-interval auto, 1 % of the film snippets, 10 epochs; and how
far alphas in use are off in a run whose alphas move far (s = 12). After `cargo xtask setup` and `cargo xtask trainer`, with
nothing else running.
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / "fixtures" / "cache"
ROUNDS = 5


def libtorch() -> str:
    given = os.environ.get("LIBTORCH")
    return given or subprocess.run(
        [sys.executable, str(ROOT / "trainer" / "libtorch.py")], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def build(name: str, environment: dict) -> str:
    command = ["cargo", "bench", "--package", "evenkeel-trainer", "--bench", name, "--no-run"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, check=True)
    return str(ROOT / re.search(r"\((target/[^)]+)\)", done.stderr).group(1))


def times(command: list) -> list:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [float(word) for word in done.stdout.split()]


def steps(name: str, program: str, python: str, arguments: list) -> None:
    """Medians of rounds in turns: what changes on the machine changes for both."""
    ratios = []
    for _ in range(ROUNDS):
        ours = statistics.median(times([program, *arguments]))
        theirs = statistics.median(times([python, str(HERE / f"{name}_pytorch.py"), *arguments]))
        ratios.append(ours / theirs)
        print(f"{name} {arguments}: {ours:.1f} ms, PyTorch {theirs:.1f} ms, ratio {ours / theirs:.3f}", flush=True)
    print(f"{name} {arguments}: ratio {statistics.median(ratios):.3f} (median of {ROUNDS})", flush=True)


def spectra(program: str, threads: str) -> None:
    evenkeel = ROOT / "target" / "release" / "evenkeel"
    films = CACHE / "snippets"
    with tempfile.TemporaryDirectory() as folder:
        # A trainer that only says what it was asked to do.
        say = Path(folder) / "say"
        say.write_text('#!/bin/sh\nprintf %s "$2"\n')
        say.chmod(0o755)
        for s in ["6", "12"]:
            asked = [
                str(evenkeel), "rebalance", str(CACHE / "minilm"), "--train", str(films / "films-train.jsonl"),
                "--eval", str(films / "films-test.jsonl"), "--subsample", "0.01", "--epochs", "10", "--batch", "16",
                "--learning-rate", "1e-4", "--s", s, "--threads", threads, "--keep", "last", "--output", folder + "/out",
                "--trainer", str(say),
            ]  # fmt: skip
            request = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout
            print(f"s = {s}", flush=True)
            subprocess.run([program, request, f"{folder}/{s}"], check=True)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    python, threads = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else str(os.cpu_count())
    environment = {**os.environ, "LIBTORCH": libtorch()}
    step, operator, spectra_program = [build(name, environment) for name in ("step", "operator", "spectra")]
    for lengths in ([], ["even"]):
        steps("step", step, python, [str(CACHE / "minilm"), threads, "15", *lengths])
    for kind in ("fno2d", "unet2d"):
        steps("operator", operator, python, [threads, "8", "64", kind])
    spectra(spectra_program, threads)


if __name__ == "__main__":
    main()
