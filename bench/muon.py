"""What a step of Muon costs: ours, in fp32, against PyTorch's, in bf16, on the matrices of a decoder.

    python bench/muon.py            the decoder of the demo, a minute
    python bench/muon.py --quick    fewer steps

Both take the same gradients in turn. The last line is JSON: `ratio` is PyTorch's time over ours, the median of pairs.
"""

import argparse
import json
import statistics
import time

import torch

from sequela.model.decoder import Decoder
from sequela.serve.presets import preset
from sequela.training.derive import resolve
from sequela.training.muon import Muon
from sequela.training.optimizer import decoder_groups

TOKENS = 110  # of the demo's vocabulary


def seconds(optimizer: torch.optim.Optimizer, steps: int) -> float:
    """The time of a step."""
    begun = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
    return (time.perf_counter() - begun) / steps


def main(pairs: int, steps: int) -> None:
    """Measure, and print the result."""
    config = resolve(preset("nafld").train, TOKENS, 1_000_000).model
    made = []
    for kind in (torch.optim.Muon, Muon):
        torch.manual_seed(0)
        weights = decoder_groups(Decoder(config))[0].weights
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        made.append(kind(weights, 1e-3, 0.1, adjust_lr_fn="match_rms_adamw"))
        made[-1].step()  # the momenta come with the first step
    found = sorted(
        ((seconds(made[0], steps), seconds(made[1], steps)) for _ in range(pairs)),
        key=lambda pair: pair[0] / pair[1],
    )
    theirs, ours = found[len(found) // 2]
    ratio = statistics.median(a / b for a, b in found)
    count = len(made[1].param_groups[0]["params"])
    print(f"{count} matrices, a step: PyTorch {1000 * theirs:.1f} ms, ours {1000 * ours:.1f} ms")
    print(json.dumps({"name": "muon", "ratio": ratio, "target": 1.0, "ok": ratio >= 1, "ms": 1000 * ours}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three pairs of three steps")
    main(*((3, 3) if parser.parse_args().quick else (9, 10)))
