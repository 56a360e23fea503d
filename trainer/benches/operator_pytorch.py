#!/usr/bin/env python3
"""The same steps as operator.rs, by PyTorch: operator_pytorch.py [THREADS] [STEPS] [POINTS] [fno2d|unet2d]."""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fixtures"))

import torch
from torch.nn import functional as F
from trainer_operators import FNO, UNet, roll_out

EXAMPLES, FRAMES, CHANNELS, INITIAL = 4, 21, 4, 10


def main() -> None:
    threads, steps, points = (int(word) for word in (sys.argv[1:] + ["1", "10", "64"][len(sys.argv) - 1 :])[:3])
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(13)
    kind, inputs = sys.argv[4] if len(sys.argv) > 4 else "fno2d", INITIAL * CHANNELS
    model = FNO(2, inputs, CHANNELS, 20, 12) if kind == "fno2d" else UNet(2, inputs, CHANNELS, 32, 4)
    model.to(device)
    count = EXAMPLES * FRAMES * points * points * CHANNELS
    frames = (torch.arange(count, dtype=torch.float32, device=device) * 0.37).sin()
    frames = frames.view(EXAMPLES, FRAMES, points, points, CHANNELS)
    times = []
    for step in range(steps + 2):
        start = time.perf_counter()
        model.zero_grad(set_to_none=True)
        found = roll_out(model, frames, INITIAL)
        sum(F.mse_loss(found[:, at], frames[:, INITIAL + at]) for at in range(FRAMES - INITIAL)).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        if step >= 2:
            times.append(1e3 * (time.perf_counter() - start))
    print(" ".join(f"{value:.1f}" for value in sorted(times)))


if __name__ == "__main__":
    main()
