#!/usr/bin/env python3
"""Train LoRA adapters of MiniLM on the film snippets, and hand the result to PEFT.

    python3 trainer/evidence/adapter.py FOLDER

FOLDER holds evenkeel and evenkeel-trainer. Runs the same training twice, once for the adapter and once with --merge, and says:
whether the base is what it was to the bit; whether every tensor of the merged model that has no adapter is; PEFT's accuracy with
the adapter beside that of report.json; how far PEFT's logits are from those of the merged model in transformers; and whether
`evenkeel analyze` of base and adapter agrees with report.json. Needs torch, transformers and peft.
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "fixtures" / "cache" / "minilm"
TRAIN, TEST = (ROOT / "fixtures" / "cache" / "snippets" / f"films-{part}.jsonl" for part in ("train", "test"))
LABELS = ["negative", "positive"]
OPTIONS = "--lora 8 --epochs 1 --batch 16 --subsample 0.1 --keep last --max-length 64 --seed 13 --quiet".split()


def digest() -> str:
    return hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()


def logits(model, examples) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    found = []
    with torch.no_grad():
        for start in range(0, len(examples), 64):
            texts = [example["text"] for example in examples[start : start + 64]]
            batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
            found.append(model.eval()(**batch).logits)
    return torch.cat(found)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    os.environ["EVENKEEL_TRAINER"] = str(folder / "evenkeel-trainer")
    examples = [json.loads(line) for line in TEST.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as place:
        before = digest()
        for name, more in (("adapter", []), ("merged", ["--merge"])):
            command = [folder / "evenkeel", "rebalance", MODEL, "--train", TRAIN, "--eval", TEST, "-o", f"{place}/{name}"]
            subprocess.run([*command, *OPTIONS, *more], check=True, stdout=subprocess.DEVNULL)
        print("base unchanged:", digest() == before)
        base, merged = load_file(MODEL / "model.safetensors"), load_file(f"{place}/merged/model.safetensors")
        changed = [name for name in base if not torch.equal(base[name], merged[f"bert.{name}"])]
        adapted = [name for name in base if name.endswith(("query.weight", "value.weight"))]
        print("merged changes what has an adapter, and nothing else:", sorted(changed) == sorted(adapted))
        report = json.loads(Path(place, "adapter", "report.json").read_text())
        found = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=2)
        by_peft = logits(PeftModel.from_pretrained(found, f"{place}/adapter"), examples)
        labels = torch.tensor([LABELS.index(example["label"]) for example in examples])
        accuracy = (by_peft.argmax(1) == labels).double().mean().item()
        print(f"accuracy: {accuracy:.6f} by PEFT, {report['after'][0]['value']:.6f} in the report")
        of_merged = logits(AutoModelForSequenceClassification.from_pretrained(f"{place}/merged"), examples)
        print(f"largest difference of logits: {(by_peft - of_merged).abs().max().item():.2e}")
        command = [folder / "evenkeel", "analyze", MODEL, "--adapter", f"{place}/adapter", "--format", "json", "--quiet"]
        analysed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print("analyze agrees:", analysed["blocks"] == report["spectra_after"]["blocks"])


if __name__ == "__main__":
    main()
