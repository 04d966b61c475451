"""The peer of bench/training.py, in an environment of its own: the Trainer of `transformers` on rows made by us.

    python trainer.py ROWS.npz '{"layout": "packed", "rows": 4, "accumulate": 4, "steps": 5, ...}'

The last line is JSON: the seconds of each step after the first, on the wall and of the processor, and the mean loss in
nats a token.
"""

import json
import os
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers


class Clock(transformers.TrainerCallback):
    """Notes when each step ends, on the wall and by the processor's time."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, *_, **__):
        self.ends.append((time.perf_counter(), time.process_time()))


class InOrder(transformers.Trainer):
    """Takes the rows in the order given, so that all sides do the same steps."""

    def _get_train_sampler(self, *_, **__):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def packed(file):
    """Rows of the context's length, patients one after another.

    Positions restart with each patient: `transformers` takes from them that no patient sees another.
    """
    names = {"input_ids": "ids", "position_ids": "positions", "labels": "labels"}
    arrays = {name: file[ours] for name, ours in names.items()}
    return [{name: array[row] for name, array in arrays.items()} for row in range(len(arrays["labels"]))]


def stack(rows):
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def alone(file):
    """One patient a row."""
    return np.split(file["windows"], np.cumsum(file["lengths"])[:-1])


def pad(rows):
    """As the collators of `transformers` do: to the longest of the batch, here to a multiple of eight."""
    shape = len(rows), -(-max(map(len, rows)) // 8) * 8
    ids, real, labels = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -100)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = labels[number, : len(row)] = row
        real[number, : len(row)] = 1
    arrays = {"input_ids": ids, "attention_mask": real, "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def main():
    file, given = np.load(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(given["threads"])
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**given["config"]))
    if given["all_bf16"]:
        model = model.to(torch.bfloat16)
    together, clock = given["layout"] == "packed", Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=given["rows"],
            gradient_accumulation_steps=given["accumulate"],
            max_steps=given["steps"],
            bf16=given["bf16"] and not given["all_bf16"],
            use_cpu=True,
            learning_rate=1e-3,
            dataloader_num_workers=given["workers"],
            torch_compile=given["compile"],
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = InOrder(
            model,
            arguments,
            train_dataset=packed(file) if together else alone(file),
            data_collator=stack if together else pad,
            callbacks=[clock],
        )
        loss = trainer.train().training_loss
    seconds, cpu_seconds = np.diff(clock.ends, axis=0).T.tolist()
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "loss": loss}))


if __name__ == "__main__":
    main()
