#!/usr/bin/env python3
"""The same fine-tuning in PyTorch and transformers, to hold `evenkeel rebalance` against; prints one JSON object.

    reference.py MODEL TRAIN EVAL RATIO EPOCHS BATCH RATE S SEED [THREADS]    S = 0: uniform
    reference.py words TRAIN EVAL RATIO                                       bag of words, logistic regression

The definitions are those of docs/numbers.md and docs/rebalance.md, written down a second time: alpha by Hill over half of the
eigenvalues, a block's the mean over its linear layers; the sigmoid mapping with tau = 10; AdamW with weight decay 0.1 on all but
biases and norms; warm-up over 6 % of the steps, then linear decay; gradients clipped at 1; spectra every min(100, max(1,
steps per epoch / 10)) steps. Needs torch, transformers and, for the words, scikit-learn.
"""
import json
import math
import os
import random
import sys
import time
from pathlib import Path
from typing import Dict, List, Tuple

os.environ["HF_HUB_OFFLINE"] = "1"

TAU, WARMUP, DECAY, CLIP, LENGTH = 10.0, 0.06, 0.1, 1.0, 128
LABELS = ["negative", "positive"]
Example = Tuple[str, int]


def read(path: str, ratio: float = 1.0) -> List[Example]:
    """Texts and label numbers: the first part of the file."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
    rows = rows[: math.floor(len(rows) * ratio)]
    return [(row["text"], LABELS.index(row["label"])) for row in rows]


def words(train: List[Example], test: List[Example]) -> Dict[str, float]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline

    def classify(**how) -> float:
        model = make_pipeline(TfidfVectorizer(sublinear_tf=True, **how), LogisticRegressionCV(Cs=10, cv=5, scoring="accuracy", max_iter=2000))
        model.fit([text for text, _ in train], [label for _, label in train])
        return float(model.score([text for text, _ in test], [label for _, label in test]))

    return {"words": classify(), "words_and_pairs": classify(ngram_range=(1, 2))}


def alpha(weight) -> float:
    """1 + k / (sum of the logarithms of the k largest eigenvalues over the next one), k half of them."""
    import torch

    w = weight.detach().double()
    values = torch.linalg.eigvalsh(w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w)
    k = len(values) // 2
    return 1 + k / torch.log(values[-k:] / values[-k - 1]).sum().item()


class Balance:
    """The blocks of an encoder, their alphas, and the factors of their learning rates."""

    def __init__(self, model, s: float) -> None:
        self.layers = list(model.base_model.encoder.layer)
        self.matrices = [[p for p in layer.parameters() if p.ndim == 2] for layer in self.layers]
        self.s, self.seconds = s, 0.0
        self.measure()

    def measure(self) -> None:
        began = time.perf_counter()
        self.alphas = [sum(map(alpha, block)) / len(block) for block in self.matrices]
        self.seconds += time.perf_counter() - began

    def std(self) -> float:
        mean = sum(self.alphas) / len(self.alphas)
        return math.sqrt(sum((a - mean) ** 2 for a in self.alphas) / len(self.alphas))

    def factors(self) -> List[float]:
        mean = sum(self.alphas) / len(self.alphas)
        return [10 ** (self.s * (1 / (1 + math.exp(-TAU * (a - mean))) - 0.5)) for a in self.alphas]

    def groups(self, model) -> List[dict]:
        """Weights and the rest of each block, and last of all that is in none."""
        inside = {id(p) for layer in self.layers for p in layer.parameters()}
        owners = [list(layer.parameters()) for layer in self.layers]
        owners.append([p for p in model.parameters() if id(p) not in inside])
        split = lambda owner, is_matrix: [p for p in owner if (p.ndim >= 2) == is_matrix]
        return [
            {"params": split(owner, is_matrix), "weight_decay": DECAY if is_matrix else 0.0}
            for owner in owners
            for is_matrix in (True, False)
        ]


def share(step: int, steps: int) -> float:
    """The part of the highest rate: warm-up, then linear decay."""
    warmup = math.ceil(WARMUP * steps)
    return step / warmup if step < warmup else (steps - step) / max(1, steps - warmup)


def train(model_path: str, data: List[Example], test: List[Example], epochs: int, batch: int, peak: float, s: float, seed: int) -> dict:
    import torch
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    shuffled = random.Random(seed)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{model_path}/tokenizer.json", pad_token="[PAD]")
    tokenizer.backend_tokenizer.no_padding()
    model = AutoModelForSequenceClassification.from_pretrained(model_path, num_labels=len(LABELS), dtype=torch.float32)
    balance = Balance(model, s)
    optimizer = torch.optim.AdamW(balance.groups(model), lr=peak, fused=True)

    def encode(examples: List[Example]):
        texts = [text for text, _ in examples]
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        return inputs, torch.tensor([label for _, label in examples])

    @torch.no_grad()
    def accuracy() -> float:
        model.eval()
        by_length = sorted(test, key=lambda example: len(example[0]))
        right = 0
        for start in range(0, len(by_length), 64):
            inputs, labels = encode(by_length[start : start + 64])
            right += (model(**inputs).logits.argmax(-1) == labels).sum().item()
        model.train()
        return right / len(test)

    per_epoch = math.ceil(len(data) / batch)
    steps, every = per_epoch * epochs, min(100, max(1, per_epoch // 10))
    before, scores, step = balance.std(), [accuracy()], 0
    balance.seconds, seconds = 0.0, 0.0
    model.train()
    for _ in range(epochs):
        began = time.perf_counter()
        order = list(data)
        shuffled.shuffle(order)
        for start in range(0, len(order), batch):
            if step % every == 0 and step > 0:
                balance.measure()
            factors = [*balance.factors(), 1.0]
            for number, group in enumerate(optimizer.param_groups):
                group["lr"] = peak * share(step, steps) * factors[number // 2]
            inputs, labels = encode(order[start : start + batch])
            loss = model(**inputs, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            step += 1
        seconds += time.perf_counter() - began
        scores.append(accuracy())
    spectra = balance.seconds
    balance.measure()
    return {"accuracy": scores, "std": [before, balance.std()], "seconds": seconds, "seconds_spectra": spectra}


def main() -> None:
    if sys.argv[1] == "words":
        train_path, test_path, ratio = sys.argv[2:5]
        result = words(read(train_path, float(ratio)), read(test_path))
    else:
        import torch

        model, train_path, test_path, ratio, epochs, batch, rate, s, seed = sys.argv[1:10]
        torch.set_num_threads(int(sys.argv[10]) if len(sys.argv) > 10 else 2)
        data, test = read(train_path, float(ratio)), read(test_path)
        result = train(model, data, test, int(epochs), int(batch), float(rate), float(s), int(seed))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
