#!/usr/bin/env python3
"""Train neural operators on parts of small data sets with and without TempBalance; every run is a row of operators.csv.

    cargo xtask setup && cargo xtask trainer
    python3 trainer/evidence/operators.py run              all of it: about two hours on two cores
    python3 trainer/evidence/operators.py run darcy        one set
    python3 trainer/evidence/operators.py table            the table, in Markdown

Darcy flow is neuraloperator's (fixtures/fetch.py); compressible flow is generated first, by evenkeel-trainer. Runs that have
their row are not made again. Standard library only.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple

from runs import Rows, result, spread

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RELEASE = ROOT / "target" / "release"


class Set(NamedTuple):
    """A data set, how it is made, the operator for it, and s for each part of the training samples."""

    data: Path
    generate: List[str]
    operator: List[str]
    epochs: int
    batch: int
    parts: Dict[str, str]


WORK = ROOT / "target" / "evidence"
#: 800 training samples of Darcy flow, 160 of either flow; a fifth of all samples is tested on. s is the paper's for
#: two axes (its appendix D), and for the others the middle of what it searched.
SETS = {
    "darcy": Set(
        ROOT / "fixtures" / "cache" / "neuralop" / "darcy_train_16.pt", [],
        ["--init", "fno2d", "--modes", "8"], 200, 50, {"1": "0.5", "0.1": "0.5", "0.05": "0.5", "0.025": "0.5"},
    ),
    "cfd1d": Set(
        WORK / "cfd1d.h5", ["cfd1d", "--samples", "200", "--resolution", "128"],
        ["--init", "fno1d"], 200, 20, {"1": "0.5", "0.1": "0.5", "0.025": "0.5"},
    ),
    "cfd2d": Set(
        WORK / "cfd2d.h5", ["cfd2d", "--samples", "160", "--resolution", "32"],
        ["--init", "fno2d"], 50, 20, {"1": "0.125", "0.1": "0.25"},
    ),
}  # fmt: skip
SCHEDULES = ["uniform", "sigmoid"]
SEEDS = [13, 37, 43]
FIELDS = [
    "set", "part", "schedule", "seed", "s", "epochs", "steps", "start", "best", "last", "pdebench", "std_before", "std_after",
    "seconds", "seconds_spectra",
]  # fmt: skip
ROWS = Rows(HERE / "operators.csv", FIELDS)


def called(command: List[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


def prepare(chosen: Set, options: argparse.Namespace) -> None:
    if chosen.generate and not chosen.data.exists():
        chosen.data.parent.mkdir(parents=True, exist_ok=True)
        print("generating", chosen.data.name, flush=True)
        called([str(options.programs / "evenkeel-trainer"), "generate", *chosen.generate, "--quiet", "--output", str(chosen.data)])


def train(name: str, part: str, schedule: str, seed: int, options: argparse.Namespace) -> dict:
    chosen = SETS[name]
    epochs = options.epochs or chosen.epochs
    output = options.work / f"{name}-{part}-{schedule}-{seed}"
    shutil.rmtree(output, ignore_errors=True)
    balance = ["--schedule", "uniform"] if schedule == "uniform" else ["--s", chosen.parts[part]]
    called([
        str(options.programs / "evenkeel"), "rebalance", *chosen.operator, "--train", str(chosen.data), "--subsample", part,
        "--epochs", str(epochs), "--batch", str(chosen.batch), "--seed", str(seed), "--threads", str(options.threads),
        "--quiet", "--output", str(output), *balance,
    ])  # fmt: skip
    report, evaluations = result(output)
    score = lambda scores, key: next(score["value"] for score in scores if score["name"] == key)
    return {
        "s": "0" if schedule == "uniform" else chosen.parts[part], "epochs": epochs, "steps": report["steps"],
        "start": score(report["before"], "nrmse"), "best": score(report["after"], "nrmse"),
        "last": dict(evaluations[-1]["scores"])["nrmse"], "pdebench": score(report["after"], "nrmse_pdebench"),
        "std_before": report["alpha_std_before"], "std_after": evaluations[-1]["alpha_std"],
        "seconds": report["seconds"], "seconds_spectra": report["seconds_spectra"],
    }  # fmt: skip


def run(options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    known = {(row["set"], row["part"], row["schedule"], int(row["seed"])) for row in ROWS.read()}
    for name in options.sets or SETS:
        prepare(SETS[name], options)
        for part in options.parts or SETS[name].parts:
            for seed in options.seeds or SEEDS:
                for schedule in SCHEDULES:
                    key = (name, part, schedule, seed)
                    if key in known:
                        continue
                    found = train(name, part, schedule, seed, options)
                    if not options.epochs:
                        ROWS.add(dict(zip(FIELDS, key)) | found)
                    print(*key, f"nRMSE {found['best']:.5f}, alpha STD {found['std_after']:.4f}, {found['seconds']:.0f} s", flush=True)


def table() -> None:
    known = ROWS.read()
    print("| set | part | schedule | seeds | nRMSE, best epoch | nRMSE, last epoch | change of best | alpha STD before | after |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, chosen in SETS.items():
        for part in chosen.parts:
            plain = None
            for schedule in SCHEDULES:
                found = [r for r in known if (r["set"], r["part"], r["schedule"]) == (name, part, schedule)]
                if not found:
                    continue
                number = lambda key: [float(row[key]) for row in found]
                best = statistics.mean(number("best"))
                change = "" if plain is None else f"{100 * (best / plain - 1):+.1f} %"
                plain = best if plain is None else plain
                called = schedule if schedule == "uniform" else f"s = {found[0]['s']}"
                print(
                    f"| {name} | {100 * float(part):g} % | {called} | {len(found)} | {spread(number('best'), 5)} | "
                    f"{spread(number('last'), 5)} | {change} | {spread(number('std_before'), 3)} | {spread(number('std_after'), 3)} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="make the runs that have no row yet")
    runs.add_argument("sets", nargs="*", choices=[*SETS, []], metavar="SET", help="darcy, cfd1d, cfd2d [default: all]")
    runs.add_argument("--seeds", type=int, nargs="+")
    runs.add_argument("--parts", nargs="+", help="of the training samples; with --threads 1 two halves can run side by side")
    runs.add_argument("--epochs", type=int, help="only try it: no row is written")
    runs.add_argument("--programs", type=Path, default=RELEASE, help="where evenkeel and evenkeel-trainer are")
    runs.add_argument("--work", type=Path, default=WORK, help="where the results lie")
    runs.add_argument("--threads", type=int, default=os.cpu_count())
    commands.add_parser("table", help="print the table")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        table()


if __name__ == "__main__":
    main()
