#!/usr/bin/env python3
"""Speed of the forms that docs/quality.md compares, on random weights: writes docs/results/speed.csv.

    python3 bench/forms.py          # about two minutes; on a quiet machine

int8 weights, f16 caches, two threads; the presets take turns, round by round, and each figure is the median of the rounds.
"""

import csv
import io
import os
import statistics
import subprocess
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
PRESETS = {"flat": "flat-15m", "rival": "rival-15m", "thin2-window32": "memory-15m"}  # shape of train/shapes.py: preset
ROUNDS, DEPTHS = 3, (0, 8192, 32768)


def measure(program, preset):
    """{(depth, kind): tokens/s}; kind is pp (prefill) or tg (decode)."""
    command = [program, "bench", "-preset", preset, "-weights", "int8", "-cache", "f16", "-threads", "2", "-p", "512", "-n", "64",
               "-d", ",".join(map(str, DEPTHS)), "-csv"]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {(int(row["depth"]), row["test"][:2]): float(row["tokens_per_second"]) for row in csv.DictReader(io.StringIO(out))}


def main():
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "photon")
        subprocess.run(["go", "build", "-o", program, "./cmd/photon"], cwd=ROOT, check=True)
        rounds = [{name: measure(program, preset) for name, preset in PRESETS.items()} for _ in range(ROUNDS)]
    path = os.path.join(ROOT, "docs", "results", "speed.csv")
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["shape", "depth", "decode tokens/s", "prefill tokens/s"])
        for name in PRESETS:
            for depth in DEPTHS:
                decode, prefill = (statistics.median(r[name][depth, kind] for r in rounds) for kind in ("tg", "pp"))
                writer.writerow([name, depth, round(decode), round(prefill)])


if __name__ == "__main__":
    main()
