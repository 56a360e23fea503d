"""What the scripts of evidence share: runs as rows of a file, and how they are told. Standard library only."""
import csv
import json
import statistics
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

Row = Dict[str, str]


class Rows:
    """A CSV file with a row for every run."""

    def __init__(self, path: Path, fields: List[str]) -> None:
        self.path, self.fields = path, fields

    def read(self) -> List[Row]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def add(self, row: dict) -> None:
        """One line at a time, so that runs side by side do not lose each other's."""
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})


def result(output: Path) -> Tuple[dict, List[dict]]:
    """The report of a run, and of its log the lines with an evaluation."""
    report = json.loads((output / "report.json").read_text())
    log = [json.loads(line) for line in (output / "training" / "log.jsonl").read_text().splitlines()]
    return report, [line for line in log if line.get("scores")]


def spread(values: Iterable[float], digits: int) -> str:
    """Mean and standard deviation; of one run there is none."""
    values = list(values)
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
