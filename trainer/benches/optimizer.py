#!/usr/bin/env python3
"""Time a step of PyTorch's AdamW and of clipping, by turns with the program built of benches/optimizer.rs.

    python3 trainer/benches/optimizer.py target/release/deps/optimizer-<hash>
"""
import subprocess
import sys
import time
from typing import Callable, List

import torch

SIZES = {"minilm": (384, 6), "bert-base": (768, 12)}
TURNS = 3


def fastest(call: Callable) -> float:
    times = []
    for _ in range(12):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times[2:])


def groups(hidden: int, layers: int) -> List[dict]:
    blocks = [[(30522, hidden), (512, hidden), (2, hidden)]]
    for _ in range(layers):
        shapes = [(1, 1), (1, 1), (1, 1), (1, 1), (4, 1), (1, 4)]
        matrices = [(rows * hidden, columns * hidden) for rows, columns in shapes]
        blocks.append(matrices + [(rows * hidden,) for rows, _ in shapes] + [(hidden,)] * 4)
    made = []
    for index, block in enumerate(blocks):
        parameters = [torch.randn(shape, requires_grad=True) for shape in block]
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape)
        made.append(dict(params=parameters, lr=1e-5 * (1 + index / 10)))
    return made


def main() -> None:
    ours, theirs = {}, {}
    for _ in range(TURNS):
        for line in subprocess.run(sys.argv[1:2], check=True, capture_output=True, text=True).stdout.splitlines():
            name, *numbers = line.split()
            ours.setdefault(name, []).append([float(number) for number in numbers])
        for name, size in SIZES.items():
            optimizer = torch.optim.AdamW(groups(*size), weight_decay=0.0)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            step = fastest(optimizer.step)
            clipping = fastest(lambda: torch.nn.utils.clip_grad_norm_(parameters, 1.0))
            theirs.setdefault(name, []).append([step, clipping])
    for name in SIZES:
        for index, what in enumerate(("step", "clipping")):
            here, there = (min(turn[index] for turn in turns[name]) for turns in (ours, theirs))
            print(f"{name} {what}: {here:.1f} ms, PyTorch {there:.1f} ms, ratio {here / there:.2f}")


if __name__ == "__main__":
    main()
