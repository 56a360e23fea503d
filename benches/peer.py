#!/usr/bin/env python3
"""Time what a Python analysis does on the same checkpoint: every singular value of every linear layer.

usage: OMP_NUM_THREADS=2 python3 benches/peer.py CHECKPOINT.safetensors

The kernel is torch.linalg.svdvals on F32 weights, which the published code of the paper calls; Hill's estimator on
the result costs nothing beside it. Needs torch and safetensors.
"""
import sys
import time

from safetensors import safe_open
from torch.linalg import svdvals

start = time.perf_counter()
layers = 0
with safe_open(sys.argv[1], "pt") as checkpoint:
    for name in checkpoint.keys():
        weight = checkpoint.get_tensor(name)
        if ".layer." in name and weight.ndim == 2:
            values = svdvals(weight).square()
            k = len(values) // 2
            alpha = 1 + k / (values[:k] / values[k]).log().sum()
            layers += 1
print(f"{layers} layers in {time.perf_counter() - start:.2f} s (without importing torch)")
