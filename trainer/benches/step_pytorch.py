#!/usr/bin/env python3
"""One training step of PyTorch's eager mode, as benches/step.rs measures ours: DIRECTORY [THREADS] [STEPS] [even] [bf16]."""
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

EXAMPLES, LENGTH = 16, 64


def main():
    words = [word for word in sys.argv[1:] if word not in ("bf16", "even")]
    bf16, even = "bf16" in sys.argv, "even" in sys.argv
    torch.set_num_threads(int(words[1]) if len(words) > 1 else 1)
    steps = int(words[2]) if len(words) > 2 else 15
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        words[0], num_labels=2, attn_implementation="sdpa", dtype=torch.float32
    ).to(device).train()  # fmt: skip
    ids = (torch.arange(EXAMPLES * LENGTH, device=device) % 1000 + 1000).view(EXAMPLES, LENGTH)
    lengths = torch.arange(EXAMPLES, device=device) % 4 * 8 + LENGTH - 24
    mask = (torch.arange(LENGTH, device=device)[None] < lengths[:, None]).long()
    kinds, targets = torch.zeros_like(ids), torch.arange(EXAMPLES, device=device) % 2
    times = []
    for step in range(steps + 3):
        start = time.perf_counter()
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits = model(input_ids=ids, attention_mask=None if even else mask, token_type_ids=kinds).logits
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        if step >= 3:
            times.append((time.perf_counter() - start) * 1e3)
    print(" ".join(f"{value:.1f}" for value in sorted(times)))


if __name__ == "__main__":
    main()
