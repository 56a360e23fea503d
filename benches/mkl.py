#!/usr/bin/env python3
"""Gram matrix and eigenvalues by torch from PyPI (MKL on x86), as multiples of T, like the benchmark `limit`.

usage: OMP_NUM_THREADS=2 python3 benches/mkl.py

T = (m·n² + 4/3·n³) / rate, with the rate of torch's own double-precision product. Needs torch.
"""
import time

import torch


def best(repeats, work):
    """The shortest of so many runs, in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main():
    torch.manual_seed(0)
    a = torch.randn(4096, 4096, dtype=torch.float64)
    rate = 2 * 4096**3 / best(3, lambda: a @ a)
    print(f"{torch.get_num_threads()} threads, matrix product {rate / 1e9:.1f} GFLOP/s\n")
    print("| work | seconds | T | seconds / T |\n| --- | ---: | ---: | ---: |")
    for rows, cols in [(4096, 4096), (11008, 4096), (768, 768), (3072, 768)]:
        for dtype in [torch.float64, torch.float32]:
            w = torch.randn(rows, cols, dtype=dtype)
            seconds = best(2 if cols > 1000 else 5, lambda: torch.linalg.eigvalsh(w.T @ w))
            limit = (rows * cols**2 + 4 / 3 * cols**3) / rate
            print(f"| {rows} × {cols}, {dtype} | {seconds:.4f} | {limit:.4f} | {seconds / limit:.2f} |")


if __name__ == "__main__":
    main()
