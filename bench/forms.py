#!/usr/bin/env python3
"""Speed of the forms that docs/quality.md compares, on random weights: writes docs/results/speed.csv.

    python3 bench/forms.py                       # about ten minutes; on a quiet machine
    python3 bench/forms.py OUT.csv flat thin3    # some of the shapes, to a file elsewhere

int8 weights, f16 caches, two threads; the shapes take turns, round by round, and each figure is the median of the rounds.
"""

import csv
import io
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
SHAPES = ("flat", "rival", "windows", "block", "published", "published-bounded", "stream",
          "thin2-window32", "thin2-window16", "thin2-wide")  # of train/shapes.py
ROUNDS, DEPTHS = 5, (0, 8192, 32768)


def init(program, name, directory):
    """A model of random weights of a shape; returns its directory."""
    config, model = os.path.join(directory, name + ".json"), os.path.join(directory, name)
    with open(config, "w", encoding="utf-8") as f:
        subprocess.run([sys.executable, os.path.join(ROOT, "train", "shapes.py"), name], check=True, stdout=f)
    subprocess.run([program, "init", "-config", config, model], check=True)
    return model


def measure(program, model):
    """{(depth, kind): (tokens/s, bytes of state at the end)}; kind is pp (512 tokens of prefill) or tg (64 decoded)."""
    command = [program, "bench", "-model", model, "-weights", "int8", "-cache", "f16", "-threads", "2", "-p", "512", "-n", "64",
               "-d", ",".join(map(str, DEPTHS)), "-csv"]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {(int(row["depth"]), row["test"][:2]): (float(row["tokens_per_second"]), int(row["state_bytes"])) for row in csv.DictReader(io.StringIO(out))}


def main():
    path, *shapes = sys.argv[1:] or [os.path.join(ROOT, "docs", "results", "speed.csv"), *SHAPES]
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "photon")
        subprocess.run(["go", "build", "-o", program, "./cmd/photon"], cwd=ROOT, check=True)
        models = {name: init(program, name, directory) for name in shapes}
        rounds = [{name: measure(program, model) for name, model in models.items()} for _ in range(ROUNDS)]
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["shape", "depth", "decode tokens/s", "prefill tokens/s", "state bytes"])
        for name in shapes:
            for depth in DEPTHS:
                decode, prefill = (statistics.median(r[name][depth, kind][0] for r in rounds) for kind in ("tg", "pp"))
                writer.writerow([name, depth, round(decode), round(prefill), rounds[0][name][depth, "tg"][1]])


if __name__ == "__main__":
    main()
