"""How fast do many rollouts of one history come, beside `transformers`, and beside what the machine could do?

    bench/peers.sh                     once: the peer's environment
    python bench/rollouts.py           64 rollouts of 256 tokens after a history of 1,024; 15 minutes on two cores
    python bench/rollouts.py --quick   a few short rollouts; their numbers mean little

One model for all: Qwen2, 4 layers of 384, 9.8 million parameters with a vocabulary of 1,024, weights random and saved
once. Each side is a process of its own; they run in turn, several times, and the median counts (`generate` is slow and
runs less often). The clock runs from the history's tokens to the last new token: reading the history counts, loading
the model and a short run that warms up do not. All sample from the whole distribution at temperature 1, and nothing
ends a rollout early; what is counted are the tokens that came back. The sides, each in bf16 and in fp32:

* sequela: the engine of `sequela simulate`, with its clock, stop conditions and one watched outcome.
* processes: the same with as many processes as threads, as `sequela simulate` does for cohorts; they are there when the
  clock starts, and each reads the history.
* generate: `generate(num_return_sequences=...)` of `transformers`, which reads the history once for each rollout.
* static cache: a loop by hand on `transformers`. The history is read once, its keys and values are copied into as many
  rows of a StaticCache, then one pass a token for all rows, attention by sdpa. With --compile also through
  torch.compile, whose compilation is not counted.

`generate_ratio` and `static_ratio` are our tokens a second over theirs in the same precision; `bf16 to fp32` is ours in
bf16 over theirs in fp32, which is their default. Ratios named cpu_ are of the processor's time instead of the wall's.

Run it where nothing else runs: after every operation the two threads of the peer wait for each other, spinning, so
other work slows it down several times in both kinds of time, and then all ratios flatter us (`busy` in the JSON object
says that there was other work at the start). With --threads 1 nothing waits, and the processor's time means something
on a busy machine too.

`roofline_share` is the least time over ours: for each pass through the model the longer of its exact FLOPs over the
peak of matrix products in that precision, and of the bytes that must move (weights once, the history's keys and values
once for all rollouts, each rollout's own once) over the speed of the memory. Peak and speed are measured in our process
before and after each run, and the best of all counts. A cache that holds a part of these bytes from one pass to the
next may do better than this bound. `read_share` is the part of it for the history.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import decoding, process

from sequela.model import checkpoint
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder

OURS, MANY, GENERATE, STATIC, COMPILED = "sequela", "processes", "generate", "static", "compiled"
NAMES = {
    OURS: "sequela",
    MANY: "sequela, a process a thread",
    GENERATE: "transformers, generate",
    STATIC: "transformers, static cache",
    COMPILED: "transformers, static cache, compiled",
}
HERE = Path(__file__).resolve().parent


def config_of(given: argparse.Namespace) -> ModelConfig:
    """The model that was asked for; its context holds a history and a rollout."""
    return ModelConfig(
        given.vocabulary, hidden_size=given.width, layers=given.layers, heads=given.heads, kv_heads=given.heads,
        head_dim=given.head_dim, intermediate_size=given.intermediate, context=given.history + given.tokens,
    )  # fmt: skip


def sides(given: argparse.Namespace, model: Path) -> dict[tuple[str, str], Callable[[], process.Spent]]:
    """How each side is run once in each precision; those of the peer only where its environment is there."""
    python = given.peers / "transformers/bin/python"
    interpreters = {OURS: sys.executable} | ({MANY: sys.executable} if given.threads > 1 else {})
    if python.exists():
        interpreters |= {STATIC: str(python), GENERATE: str(python)}
        if given.compile:
            interpreters[COMPILED] = str(python)

    def command(side: str, precision: str) -> list[str]:
        asked = {name: getattr(given, name) for name in ("history", "rollouts", "tokens", "threads")}
        script = str(HERE / "measure/decoding.py")
        return [interpreters[side], script, side, str(model), json.dumps(asked | {"precision": precision})]

    offline = {"HF_HUB_OFFLINE": "1"}
    return {
        (side, precision): partial(process.run, command(side, precision), offline)
        for side in interpreters
        for precision in given.precision
    }


def measured(
    every: dict[tuple[str, str], Callable[[], process.Spent]], repeats: int, slow_repeats: int
) -> tuple[dict[tuple[str, str], list[dict]], dict[tuple[str, str], str]]:
    """What each side printed in each of its runs, and why those failed that did."""
    runs, failed = process.in_turn(every, slow_repeats)  # type: ignore[arg-type]
    fast = {name: side for name, side in every.items() if name in runs and name[0] != GENERATE}
    again, failed_later = process.in_turn(fast, repeats - slow_repeats)  # type: ignore[arg-type]
    together = {name: own + again.get(name, []) for name, own in runs.items() if name not in failed_later}
    found = {
        name: [json.loads(spent.output.strip().splitlines()[-1]) for spent in own]
        for name, own in together.items()
    }
    return found, failed | failed_later


def least(config: ModelConfig, given: argparse.Namespace, precision: str, own: list[dict]) -> dict:
    """The roofline: its seconds with the best speeds that any run found, and what they follow from."""
    costs = decoding.passes(config, given.history, given.rollouts, given.tokens, precision)
    peak, bandwidth = (max(one[key] for one in own) for key in ("peak", "bandwidth"))
    seconds = decoding.roofline(costs, peak, bandwidth)
    return {
        "seconds": round(seconds, 3),
        "share": round(seconds / statistics.median(one["seconds"] for one in own), 3),
        "read_share": round(decoding.roofline(costs[:, :1], peak, bandwidth) / seconds, 3),
        "gflops": round(costs[0].sum() / 1e9, 1),
        "gigabytes": round(costs[1].sum() / 1e9, 1),
        "peak_gflops_per_second": round(peak / 1e9),
        "gigabytes_per_second": round(bandwidth / 1e9, 1),
    }


def facts(config: ModelConfig, given: argparse.Namespace, found: dict[tuple[str, str], list[dict]]) -> dict:
    """The numbers of the JSON object."""
    speed = {name: statistics.median(_speeds(own)) for name, own in found.items()}
    cpu = {
        name: statistics.median(_speeds(own, "cpu_seconds")) for name, own in found.items() if name[0] != MANY
    }

    def ratios(rate: dict[tuple[str, str], float], side: str) -> dict[str, float]:
        pairs = {precision: (precision, precision) for precision in given.precision}
        pairs["bf16 to fp32"] = ("bf16", "fp32")
        return {
            key: round(rate[OURS, own] / rate[side, their], 2)
            for key, (own, their) in pairs.items()
            if (OURS, own) in rate and (side, their) in rate
        }

    theirs = (GENERATE, STATIC, COMPILED)
    told: dict = {f"{side}_ratio": ratios(speed, side) for side in theirs}
    told |= {f"cpu_{side}_ratio": ratios(cpu, side) for side in theirs}
    told["roofline"] = {
        precision: least(config, given, precision, found[OURS, precision])
        for precision in given.precision
        if (OURS, precision) in found
    }
    told["roofline_share"] = {precision: one["share"] for precision, one in told["roofline"].items()}
    told["tokens_per_second"] = {f"{NAMES[side]}, {kind}": round(own) for (side, kind), own in speed.items()}
    return told


def _speeds(own: list[dict], of: str = "seconds") -> list[float]:
    return [one["tokens"] / one[of] for one in own]


def show(
    config: ModelConfig, given: argparse.Namespace, found: dict[tuple[str, str], list[dict]], failed: dict
) -> None:
    """Print the table."""
    print("| side | precision | tokens/s | seconds | CPU-s | roofline | all runs, tokens/s |")
    print("|---|---|--:|--:|--:|--:|---|")
    for (side, precision), own in found.items():
        share = f"{least(config, given, precision, own)['share']:.0%}" if side in (OURS, MANY) else ""
        middle = statistics.median(one["seconds"] for one in own)
        cpu = "" if side == MANY else f"{statistics.median(one['cpu_seconds'] for one in own):.1f}"
        every = " ".join(f"{one:,.0f}" for one in _speeds(own))
        print(
            f"| {NAMES[side]} | {precision} | {statistics.median(_speeds(own)):,.0f} | {middle:.2f} | {cpu} "
            f"| {share} | {every} |"
        )
    for (side, precision), words in failed.items():
        print(f"| {NAMES[side]} | {precision} | failed: {words} |")


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 rollouts of 16 tokens after a history of 64")
    parser.add_argument("--history", type=int, help="tokens of the history (default: 1024)")
    parser.add_argument("--rollouts", type=int, help="of the history (default: 64)")
    parser.add_argument("--tokens", type=int, help="new tokens of each rollout (default: 256)")
    for name, size in (
        ("layers", 4), ("width", 384), ("heads", 6), ("head-dim", 64), ("intermediate", 1536), ("vocabulary", 1024),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=size, help=f"of the model (default: {size})")
    parser.add_argument("--precision", nargs="*", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--repeats", type=int, help="how often every side runs (default: 5)")
    parser.add_argument(
        "--generate-repeats", type=int, default=1, help="how often `generate` runs (default: 1)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of each side (default: 2)")
    parser.add_argument("--compile", action="store_true", help="the static cache through torch.compile too")
    parser.add_argument(
        "--peers", type=Path, default=HERE.parent / ".peers", help="where bench/peers.sh put them"
    )
    given = parser.parse_args()
    for name, short, usual in (
        ("history", 64, 1024),
        ("rollouts", 8, 64),
        ("tokens", 16, 256),
        ("repeats", 1, 5),
    ):
        setattr(given, name, getattr(given, name) or (short if given.quick else usual))
    given.generate_repeats = min(given.generate_repeats, given.repeats)
    return given


def main() -> None:
    """Run the sides in turn and print the table and the JSON object."""
    given = arguments()
    process.keep_to_cores(given.threads)
    busy = os.getloadavg()[0] > 1
    config = config_of(given)
    given.precision = process.computable(given.precision)
    if not (given.peers / "transformers/bin/python").exists():
        print(
            f"{given.peers / 'transformers'} is missing, so the peer is left out: run bench/peers.sh first."
        )
    print(f"commit {process.commit()}; {process.machine()}")
    print(
        f"{given.rollouts} rollouts of {given.tokens} tokens after a history of {given.history}; "
        f"{config.parameters:,} parameters\n",
        flush=True,
    )
    if busy:
        print("Something else is running here: all ratios below flatter us (see --help).\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="sequela-bench-") as name:
        checkpoint.save(Decoder(config).initialize(0), Path(name))
        found, failed = measured(sides(given, Path(name)), given.repeats, given.generate_repeats)
    show(config, given, found, failed)
    told = {
        "name": "rollouts",
        **{key: getattr(given, key) for key in ("history", "rollouts", "tokens", "threads")},
        "parameters": config.parameters,
        "busy": busy,
        **facts(config, given, found),
        "failed": {f"{NAMES[side]}, {kind}": words for (side, kind), words in failed.items()},
        "commit": process.commit(),
        "machine": process.machine(),
    }
    print()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
