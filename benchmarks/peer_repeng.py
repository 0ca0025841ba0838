"""repeng on pairs of texts, as a process of its own: load, train, generate. Prints one JSON line.

Run by against_repeng.py in an environment with repeng, PyTorch and transformers, which reads
the weights from the same GGUF file.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from repeng import ControlModel, ControlVector, DatasetEntry
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Argument: a JSON file with `model`, `threads`, `pairs`, `prompt` and `n_tokens`."""
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    path = Path(task["model"])
    begin = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    tokenizer.pad_token_id = tokenizer.pad_token_id or 0
    plain = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    )
    loaded = time.perf_counter()
    n_layer = plain.config.num_hidden_layers
    model = ControlModel(plain, list(range(1, n_layer)))
    dataset = [DatasetEntry(positive=one, negative=other) for one, other in task["pairs"]]
    vector = ControlVector.train(model, tokenizer, dataset, batch_size=1)
    trained = time.perf_counter()
    n_read = sum(len(tokenizer(text).input_ids) for pair in task["pairs"] for text in pair)
    model.set_control(vector, 0.1)
    inputs = tokenizer(task["prompt"], return_tensors="pt")
    options = {
        "do_sample": False,
        "min_new_tokens": task["n_tokens"],
        "max_new_tokens": task["n_tokens"],
        "pad_token_id": tokenizer.pad_token_id,
    }
    model.generate(**inputs, **(options | {"min_new_tokens": 4, "max_new_tokens": 4}))
    start = time.perf_counter()
    model.generate(**inputs, **options)
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "load": loaded - begin,
                "train": trained - loaded,
                "tokens_read": n_read,
                "tokens_per_second": task["n_tokens"] / seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
