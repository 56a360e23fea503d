#!/usr/bin/env python3
"""Fine-tune MiniLM on the film snippets with and without TempBalance, and beside it in PyTorch; every run is a row of films.csv.

    cargo xtask setup && cargo xtask trainer
    python3 trainer/evidence/films.py run small                        evenkeel: 1 % of the examples, 10 epochs
    python3 trainer/evidence/films.py run whole                        all of them, 3 epochs
    python3 trainer/evidence/films.py run small --pytorch PYTHON       the same by reference.py, with a Python that has torch
    python3 trainer/evidence/films.py table                            the tables, in Markdown

Runs that have their row are not made again. Standard library only.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from runs import Rows, result, spread

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODEL = ROOT / "fixtures" / "cache" / "minilm"
TRAIN, TEST = (ROOT / "fixtures" / "cache" / "snippets" / f"films-{part}.jsonl" for part in ("train", "test"))

#: set: (part of the examples, epochs, batch, learning rate)
SETS = {"small": ("0.01", "10", "4", "1.25e-4"), "whole": ("1.0", "3", "16", "5e-5")}
SEEDS = [13, 37, 43, 61, 89]
#: name: (options of evenkeel, s of the reference)
SCHEDULES: Dict[str, Tuple[List[str], Optional[str]]] = {
    "uniform": (["--schedule", "uniform"], "0"),
    "s = 1.25": (["--s", "1.25"], "1.25"),
    "s = 6": (["--s", "6"], "6"),
    "until −10 %": (["--until-std-drops", "10", "--s", "auto"], None),
}
FIELDS = [
    "program", "set", "schedule", "seed", "start", "best", "last", "std_before", "std_after", "reached", "epochs", "steps",
    "seconds", "seconds_spectra",
]  # fmt: skip
ROWS = Rows(HERE / "films.csv", FIELDS)


def by_evenkeel(name: str, schedule: str, seed: int, options: argparse.Namespace) -> dict:
    ratio, epochs, batch, rate = SETS[name]
    output = options.work / f"{name}-{schedule.replace(' ', '').replace('%', '')}-{seed}"
    shutil.rmtree(output, ignore_errors=True)
    command = [
        str(options.evenkeel), "rebalance", str(MODEL), "--train", str(TRAIN), "--eval", str(TEST), "--subsample", ratio,
        "--epochs", epochs, "--batch", batch, "--learning-rate", rate, "--seed", str(seed), "--threads", str(options.threads),
        "--quiet", "--output", str(output), *SCHEDULES[schedule][0],
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    report, evaluations = result(output)
    score = lambda scores: scores[0]["value"]
    accuracies = [dict(line["scores"])["accuracy"] for line in evaluations]
    return {
        "start": score(report["before"]), "best": score(report["after"]), "last": accuracies[-1],
        # With a target the state that was kept counts, without one the last: the STD changes with every step.
        "std_before": report["alpha_std_before"],
        "std_after": report["alpha_std_after"] if report["target_reached"] is not None else evaluations[-1]["alpha_std"],
        "reached": {True: "yes", False: "no", None: ""}[report["target_reached"]], "epochs": len(evaluations),
        "steps": report["steps"], "seconds": report["seconds"], "seconds_spectra": report["seconds_spectra"],
    }  # fmt: skip


def by_pytorch(name: str, schedule: str, seed: int, options: argparse.Namespace) -> dict:
    ratio, epochs, batch, rate = SETS[name]
    arguments = [MODEL, TRAIN, TEST, ratio, epochs, batch, rate, SCHEDULES[schedule][1], seed, options.threads]
    command = [options.pytorch, str(HERE / "reference.py"), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout)
    start, *accuracies = told["accuracy"]
    return {
        "start": start, "best": max(accuracies), "last": accuracies[-1], "std_before": told["std"][0],
        "std_after": told["std"][1], "reached": "", "epochs": len(accuracies), "steps": "",
        "seconds": told["seconds"], "seconds_spectra": told["seconds_spectra"],
    }  # fmt: skip


def run(options: argparse.Namespace) -> None:
    program = "pytorch" if options.pytorch else "evenkeel"
    work = by_pytorch if options.pytorch else by_evenkeel
    options.work.mkdir(parents=True, exist_ok=True)
    known = {(row["program"], row["set"], row["schedule"], int(row["seed"])) for row in ROWS.read()}
    for seed in options.seeds or SEEDS:
        for schedule in options.schedules or SCHEDULES:
            key = (program, options.set, schedule, seed)
            if key in known or (options.pytorch and SCHEDULES[schedule][1] is None):
                continue
            found = work(options.set, schedule, seed, options)
            ROWS.add(dict(zip(FIELDS, key)) | found)
            print(*key, f"{found['best']:.4f} {found['std_after']:.6f} {found['seconds']:.0f} s", flush=True)


def table() -> None:
    known = ROWS.read()
    for name in SETS:
        print(f"\n{name}\n\n| schedule | program | seeds | accuracy, best epoch | accuracy, last epoch | alpha STD | change | target reached |")
        print("|---|---|---|---|---|---|---|---|")
        for schedule in SCHEDULES:
            for program in ("evenkeel", "pytorch"):
                found = [r for r in known if (r["set"], r["schedule"], r["program"]) == (name, schedule, program)]
                if not found:
                    continue
                number = lambda key: [float(row[key]) for row in found]
                changes = [100 * (after / before - 1) for before, after in zip(number("std_before"), number("std_after"))]
                reached = [row["reached"] == "yes" for row in found if row["reached"]]
                print(
                    f"| {schedule} | {program} | {len(found)} | {spread(number('best'), 4)} | {spread(number('last'), 4)} | "
                    f"{statistics.mean(number('std_after')):.6f} | {spread(changes, 1)} % | "
                    f"{f'{sum(reached)} of {len(reached)}' if reached else ''} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="make the runs that have no row yet")
    runs.add_argument("set", choices=SETS)
    runs.add_argument("--seeds", type=int, nargs="+")
    runs.add_argument("--schedules", nargs="+", choices=SCHEDULES)
    runs.add_argument("--pytorch", metavar="PYTHON", help="run reference.py with this interpreter instead")
    runs.add_argument("--evenkeel", type=Path, default=ROOT / "target" / "release" / "evenkeel")
    runs.add_argument("--work", type=Path, default=ROOT / "target" / "evidence", help="where the results lie")
    runs.add_argument("--threads", type=int, default=os.cpu_count())
    commands.add_parser("table", help="print the tables")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        table()


if __name__ == "__main__":
    main()
