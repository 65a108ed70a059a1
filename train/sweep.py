"""Trains and probes named models, several side by side on each card, and writes one CSV row a run.

    python3 sweep.py --text TEXT --work WORK --csv runs.csv --side-by-side 3 flat:262 new:262:seed=2 new:79:muon-lr=0.04 ...

A run is NAME:MILLIONS[:OPTION=VALUE]...: a shape of shapes.py, its budget in millions of tokens, and options of train.py. A run that has its
row is left out; one that was interrupted goes on from its checkpoint in WORK. TEXT holds what ../shared calls data: train/*.xz and eval/*.xz.
Rows of 4,096 tokens, 65,536 tokens a step, 60 % books and 40 % modern text unless --mix says otherwise.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time

import bpe
import data
import shapes

HERE = os.path.dirname(os.path.abspath(__file__))
STEP = int(os.environ.get("SWEEP_STEP", 65536))
TEXTS = {  # packed name: file under TEXT
    "books": "train/books.txt.xz", "modern": "train/modern.txt.xz", "fiction": "train/fiction.txt.xz",
    "held-books": "eval/books_simple_heldout.txt.xz", "held-stories": "eval/llm_children_stories_heldout.txt.xz",
    "held-fables": "eval/fables_heldout.txt.xz",
}


def pack_all(options):
    """Packs every text once, each in a process of its own."""
    jobs = {name: [os.path.join(options.text, path)] for name, path in TEXTS.items()}
    jobs["long"] = [os.path.join(options.text, "eval", f) for f in sorted(os.listdir(os.path.join(options.text, "eval")))
                    if f.startswith("long_")]
    started = []
    for name, files in jobs.items():
        out = os.path.join(options.work, name + ".bin")
        files = [f for f in files if os.path.exists(f)]
        if files and not os.path.exists(out[:-4] + ".json"):
            command = [sys.executable, os.path.join(HERE, "data.py"), "pack", "--tokenizer", options.tokenizer, "--out", out, *files]
            started.append((name, subprocess.Popen(command, stdout=subprocess.DEVNULL)))
    for name, process in started:
        if process.wait():
            sys.exit(f"packing {name} failed")


class Run:
    def __init__(self, spec, options):
        self.name, millions, *more = spec.split(":")
        self.tokens = round(float(millions) * 1e6 / STEP) * STEP
        self.options = dict(option.split("=", 1) for option in more)
        self.seed = self.options.pop("seed", "1")
        changes = "".join(f",{k}={v}" for k, v in sorted(self.options.items()))
        self.id = f"{self.name}{changes}@{self.tokens / 1e6:.0f}M-{self.seed}"
        self.out = os.path.join(options.work, "runs", self.id)

    def commands(self, options):
        os.makedirs(self.out, exist_ok=True)
        config = os.path.join(self.out, "config.json")
        with open(config, "w", encoding="utf-8") as f:
            json.dump(shapes.config(self.name).to_dict(), f)
        at = lambda name: os.path.join(options.work, name + ".bin")
        mix = [x for part in options.mix.split(",") for x in ("--data", f"{at(part.split('=')[0])}:{part.split('=')[1]}")]
        chosen = dict({"weight-decay": "0.1", "warmup": "100", "decay-from": "0.4"}, **self.options)
        train = [sys.executable, os.path.join(HERE, "train.py"), "--config", config, "--tokenizer", options.tokenizer, *mix,
                 "--out", self.out, "--steps", str(self.tokens // STEP), "--rows", str(STEP // options.tokens), "--tokens", str(options.tokens),
                 "--seed", self.seed, "--log-every", "100", "--save-every", str(options.save_every), "--evaluate-every", "1e9"]
        train += ["--compile"] * options.compile + [x for k, v in chosen.items() for x in (f"--{k}", v)]
        probe = [sys.executable, os.path.join(HERE, "probe.py"), "--checkpoint", os.path.join(self.out, "checkpoint.pt"),
                 "--tokenizer", options.tokenizer, "--books", at("held-books"), "--documents", "stories=" + at("held-stories"),
                 "fables=" + at("held-fables"), *(["--long", at("long")] if os.path.exists(at("long")) else [])]
        return train, probe

    def row(self, probed, seconds):
        flat = {"run": self.id, "shape": self.name, "seed": self.seed, "tokens": self.tokens,
                "options": " ".join(f"{k}={v}" for k, v in sorted(self.options.items())), "train seconds": round(seconds)}
        # Forward and backward: six operations a parameter that a token meets, attention behind half a row included.
        flat["training FLOPs"] = f"{6 * self.tokens * trained_work(shapes.config(self.name)):.3g}"
        for key, value in probed.items():
            if isinstance(value, dict) and key != "worth":
                flat.update({f"{key} {k}": v for k, v in value.items()})
            else:
                flat[key] = json.dumps(value) if isinstance(value, dict) else value
        return flat


def trained_work(cfg, depth=2048):
    """Multiply-adds of a token in training: everything runs at its rate."""
    import cost

    return cost.count(cfg, depth)["decode"]


def read_rows(path):
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def write_rows(path, rows):
    names = list(dict.fromkeys(k for row in rows for k in row))
    with open(path + ".tmp", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(path + ".tmp", path)


def start(run, options, card):
    train, probe = run.commands(options)
    env = dict(os.environ, CUDA_VISIBLE_DEVICES=str(card), OMP_NUM_THREADS="2", TORCHINDUCTOR_COMPILE_THREADS="4")
    log = open(os.path.join(run.out, "out.txt"), "w")
    script = ('import subprocess, sys, json, time\n'
              't = time.time()\n'
              'train, probe = json.loads(sys.argv[1])\n'
              'subprocess.run(train, check=True)\n'
              't = time.time() - t\n'
              'done = subprocess.run(probe, check=True, stdout=subprocess.PIPE, text=True).stdout\n'
              'json.dump({"seconds": t, "probed": json.loads(done.splitlines()[-1])}, open(sys.argv[2], "w"))\n')
    result = os.path.join(run.out, "result.json")
    process = subprocess.Popen([sys.executable, "-c", script, json.dumps([train, probe]), result], stdout=log, stderr=subprocess.STDOUT, env=env,
                               start_new_session=True)
    return process, result, card


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--csv", required=True)
    parser.add_argument("--tokenizer", default=os.path.join(HERE, "..", "models", "stories", "tokenizer.json"))
    parser.add_argument("--mix", default="books=60,modern=40", help="shares of the packed texts")
    parser.add_argument("--cards", type=int, help="default: all")
    parser.add_argument("--side-by-side", type=int, default=3, help="runs on each card")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens a row")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after that, and stop those that go on, to be resumed")
    parser.add_argument("--save-every", type=float, default=120)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("runs", nargs="+")
    options = parser.parse_args()
    began = time.time()
    os.makedirs(os.path.join(options.work, "runs"), exist_ok=True)
    pack_all(options)
    print(f"packed after {time.time() - began:.0f} s", flush=True)
    cards = options.cards
    if cards is None:
        import torch

        cards = max(1, torch.cuda.device_count())
    rows = read_rows(options.csv)
    waiting = [run for run in (Run(spec, options) for spec in options.runs) if run.id not in {row["run"] for row in rows}]
    slots = [card for _ in range(options.side_by_side) for card in range(cards)]
    running = {}
    failed = 0
    while waiting or running:
        while waiting and slots and time.time() - began < options.seconds:
            run = waiting.pop(0)
            running[run] = start(run, options, slots.pop(0))
        for run, (process, result, card) in list(running.items()):
            if process.poll() is None and time.time() - began < options.seconds:
                continue
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            elif process.returncode == 0:
                with open(result, encoding="utf-8") as f:
                    done = json.load(f)
                rows.append(run.row(done["probed"], done["seconds"]))
                write_rows(options.csv, rows)
                print(f"{time.time() - began:5.0f} s  {run.id}: {done['probed']['books bits/byte']} {done['probed']['gain']}", flush=True)
            else:
                failed += 1
                with open(os.path.join(run.out, "out.txt"), encoding="utf-8") as f:
                    print(f"FAILED {run.id}\n" + "".join(f.readlines()[-6:]), flush=True)
            del running[run]
            slots.append(card)
        if time.time() - began >= options.seconds:
            waiting = []
        time.sleep(0.5)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
