"""Trains and probes named models, several side by side on each card, and writes one CSV row a run.

    python3 sweep.py --text TEXT --work WORK --csv runs.csv --side-by-side 3 flat:262 new:262:seed=2 new:79:muon-lr=0.04 ...

A run is SHAPE:MILLIONS[:OPTION=VALUE]...: a shape of shapes.py or a config.json, its budget in millions of tokens, and options of
train.py. A run that has its row, of the same texts, is left out; one that was interrupted goes on from its checkpoint
in WORK. TEXT holds train/*.txt.xz and eval/*.txt.xz, see TEXTS.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import torch

import cost
import data
import shapes

HERE = os.path.dirname(os.path.abspath(__file__))
TEXTS = {  # name: file under TEXT
    "books": "train/books.txt.xz", "modern": "train/modern.txt.xz", "fiction": "train/fiction.txt.xz",
    "held-books": "eval/books_simple_heldout.txt.xz", "held-stories": "eval/llm_children_stories_heldout.txt.xz",
    "held-fables": "eval/fables_heldout.txt.xz",
}
HELD = [name for name in TEXTS if name.startswith("held-")]  # beside them "long": eval/long_*, where there are any
# Options of train.py that a run may have: none that its row tells otherwise (steps, rows, tokens, data, out).
OPTIONS = {"lr", "muon-lr", "weight-decay", "dropout", "noise", "warmup", "decay", "decay-from", "clip", "alpha",
           "init", "teacher", "taught", "curriculum", "dtype", "seed"}
DEFAULTS = {"weight-decay": "0.1", "warmup": "100", "decay-from": "0.4"}  # of train.py's options; the rest are its own


# --- texts ------------------------------------------------------------------------------------


def shares(mix):
    """{name: share} of "books=60,modern=40"."""
    out = {}
    for part in mix.split(","):
        name, _, share = part.partition("=")
        if name not in TEXTS or name in HELD or name in out:
            raise ValueError(f"--mix: {name!r} is no text to train on, or there twice: name each of {', '.join(set(TEXTS) - set(HELD))} once")
        try:
            out[name] = float(share)
        except ValueError:
            raise ValueError(f"--mix: {part!r} is not NAME=SHARE") from None
    if min(out.values()) < 0 or not 0 < sum(out.values()) < float("inf"):
        raise ValueError(f"--mix {mix}: shares are 0 or more, and some of them more")
    return out


def packed(options, name):
    return os.path.join(options.work, name + ".bin")


def pack_all(options):
    """Packs every text that is needed and is not packed yet, each in a process of its own."""
    files = {name: [os.path.join(options.text, TEXTS[name])] for name in (*shares(options.mix), *HELD)}
    held = os.path.join(options.text, "eval")
    if os.path.isdir(held):
        files["long"] = [os.path.join(held, f) for f in sorted(os.listdir(held)) if f.startswith("long_")]
    todo = {name: f for name, f in files.items() if f and not os.path.exists(packed(options, name)[:-4] + ".json")}
    missing = [path for paths in todo.values() for path in paths if not os.path.exists(path)]
    if missing:
        sys.exit(f"sweep.py: these texts are missing: {' '.join(missing)}")
    os.makedirs(options.work, exist_ok=True)
    command = [sys.executable, os.path.join(HERE, "data.py"), "pack", "--tokenizer", options.tokenizer, "--out"]
    started = {name: subprocess.Popen([*command, packed(options, name), *paths], stdout=subprocess.DEVNULL) for name, paths in todo.items()}
    failed = [name for name, process in started.items() if process.wait()]
    if failed:
        sys.exit(f"sweep.py: packing failed: {' '.join(failed)}")
    for name, size in (("held-books", options.piece), ("long", options.long_piece)):
        if os.path.exists(packed(options, name)):
            longest = np.diff(data.open_packed(packed(options, name)).offsets).max() - 1
            if longest < size:
                sys.exit(f"sweep.py: {packed(options, name)}: its longest document has {longest} tokens, a piece {size}: choose shorter pieces")


# --- a run ------------------------------------------------------------------------------------


def settings(options):
    """What all runs of a call share and a row depends on."""
    return (f"step={options.step_tokens} row={options.tokens} mix={options.mix} piece={options.piece} long-piece={options.long_piece}")


def sizes(options):
    """The bytes of each text that was there to train on: "books=158741678 modern=65783355"."""
    manifests = {name: data.open_packed(packed(options, name)).manifest for name in shares(options.mix)}
    return " ".join(f"{name}={manifest['bytes']}" for name, manifest in manifests.items())


class Run:
    """A model to be trained and probed. Raises ValueError where the spec or the shape is wrong."""

    def __init__(self, spec, options):
        shape, _, rest = spec.partition(":")
        millions, *changes = rest.split(":")
        self.config = shapes.config(shape)
        self.shape = os.path.basename(shape).removesuffix(".json")
        try:
            self.options = dict(change.split("=", 1) for change in changes)
            millions = float(millions)
            self.steps = round(millions * 1e6 / options.step_tokens)
        except (ValueError, OverflowError):
            raise ValueError(f"{spec!r} is not SHAPE:MILLIONS[:OPTION=VALUE]...") from None
        if unknown := set(self.options) - OPTIONS:
            known = ", ".join(sorted(OPTIONS))
            raise ValueError(f"{spec!r}: {', '.join(sorted(unknown))} is no option of a run: {known}")
        if self.steps < 1:
            raise ValueError(f"{spec!r} is less than one step of {options.step_tokens} tokens")
        meta = self.config.meta_context
        if options.piece % meta or options.long_piece % meta:
            raise ValueError(f"{spec!r}: --piece {options.piece} and --long-piece {options.long_piece} must be multiples of its meta-context, {meta}")
        self.tokens = self.steps * options.step_tokens
        self.seed = self.options.pop("seed", "1")
        changes = "".join(f",{k}={v}" for k, v in sorted(self.options.items()))
        self.id = f"{self.shape}{changes}@{millions:g}M-{self.seed}"
        self.out = os.path.join(options.work, "runs", self.id)

    def at(self, name):
        return os.path.join(self.out, name)

    def prepare(self, options):
        """Makes the run's directory, when texts are packed; ValueError where it holds another run of that name."""
        os.makedirs(self.out, exist_ok=True)
        own = {"settings": settings(options), "texts": sizes(options), "config": self.config.to_dict()}
        if os.path.exists(self.at("run.json")):
            with open(self.at("run.json"), encoding="utf-8") as f:
                if json.load(f) != own:
                    raise ValueError(f"{self.out} was begun with other settings, other texts or another shape: "
                                     "remove it, or choose another --work")
        for name, value in (("run.json", own), ("config.json", own["config"])):
            with open(self.at(name), "w", encoding="utf-8") as f:
                json.dump(value, f)

    def train(self, options):
        command = [sys.executable, os.path.join(HERE, "train.py"), "--config", self.at("config.json"), "--tokenizer", options.tokenizer,
                   "--out", self.out, "--steps", str(self.steps), "--rows", str(options.step_tokens // options.tokens),
                   "--tokens", str(options.tokens), "--seed", self.seed, "--log-every", "100", "--save-every", str(options.save_every)]
        for name, share in shares(options.mix).items():
            command += ["--data", f"{packed(options, name)}:{share:g}"]
        for name, value in {**DEFAULTS, **self.options}.items():
            command += [f"--{name}", value]
        return command + ["--compile"] * options.compile

    def probe(self, options):
        command = [sys.executable, os.path.join(HERE, "probe.py"), "--checkpoint", self.at("checkpoint.pt"), "--tokenizer", options.tokenizer,
                   "--piece", str(options.piece), "--long-piece", str(options.long_piece), "--books", packed(options, "held-books"),
                   "--documents", *(f"{name[5:]}={packed(options, name)}" for name in HELD if name != "held-books")]
        return command + ["--long", packed(options, "long")] * os.path.exists(packed(options, "long"))

    def row(self, options):
        """The CSV's row of what train.py and probe.py have left."""
        worked = torch.load(self.at("checkpoint.pt"), map_location="cpu")["budget"]["worked"]
        # Forward and backward, behind half a row: three times two operations a multiply-add.
        work = 6 * self.tokens * cost.count(self.config, options.tokens // 2)["decode"]
        row = {"run": self.id, "shape": self.shape, "seed": self.seed, "tokens": self.tokens,
               "options": " ".join(f"{k}={v}" for k, v in sorted(self.options.items())), "train seconds": round(worked),
               "training FLOPs": f"{work:.3g}", "settings": settings(options), "texts": sizes(options)}
        with open(self.at("probe.json"), encoding="utf-8") as f:
            probed = json.loads(f.read().splitlines()[-1])
        for key, value in probed.items():
            if key == "worth":
                row[key] = json.dumps(value)
            elif isinstance(value, dict):
                row.update({f"{key} {k}": v for k, v in value.items()})
            else:
                row[key] = value
        return row


class Job:
    """A run on a card: training and then probing, each a process of its own."""

    def __init__(self, run, card, options):
        self.run, self.card = run, card
        self.todo = [(run.train(options), "out.txt"), (run.probe(options), "probe.json")]
        open(run.at("out.txt"), "w").close()
        self.next()

    def next(self):
        command, out = self.todo.pop(0)
        env = dict(os.environ, CUDA_VISIBLE_DEVICES=self.card, TORCHINDUCTOR_COMPILE_THREADS="4")
        env.setdefault("OMP_NUM_THREADS", "2")
        with open(self.run.at("out.txt"), "a") as errors, open(self.run.at(out), "a" if out == "out.txt" else "w") as output:
            # A group of its own: torch.compile has workers, which end with it.
            self.process = subprocess.Popen(command, stdout=output, stderr=errors, env=env, start_new_session=True)

    def poll(self):
        """None while it goes on, then whether all went well."""
        code = self.process.poll()
        if code == 0 and self.todo:
            return self.next()
        return None if code is None else code == 0

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()

    def last_words(self):
        with open(self.run.at("out.txt"), encoding="utf-8") as f:
            return "".join(f.readlines()[-6:])


# --- all of them ------------------------------------------------------------------------------


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


def wanted(options, rows):
    """The runs asked for, each once."""
    runs, had = {}, {row["run"]: row for row in rows}
    for run in (Run(spec, options) for spec in options.runs):
        before = had.get(run.id, {}).get("settings") or settings(options)  # old rows do not say
        if before != settings(options):
            raise ValueError(f"{options.csv} has a row {run.id} of other settings ({before}): choose another --csv")
        if run.id in runs and runs[run.id].config != run.config:
            raise ValueError(f"two runs would be called {run.id}: give their config.json other names")
        runs[run.id] = run
    return list(runs.values())


def card_names(wanted):
    """What CUDA_VISIBLE_DEVICES calls each card that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(max(1, torch.cuda.device_count()))]
    return names[:wanted]


def sweep(options, runs, rows):
    """Runs all of them, as many at a time as there is room for; returns how many failed or have no row yet."""
    began, failed, running = time.time(), 0, []
    room = card_names(options.cards) * options.side_by_side
    say = lambda text: print(f"{time.time() - began:5.0f} s  {text}", flush=True)
    pack_all(options)
    say("packed")
    texts = sizes(options)
    done = {row["run"] for row in rows if row.get("texts") == texts}
    runs = [run for run in runs if run.id not in done]
    for run in runs:
        run.prepare(options)
    try:
        while runs or running:
            late = time.time() - began >= options.seconds
            while runs and room and not late:
                running.append(Job(runs.pop(0), room.pop(0), options))
            for job in list(running):
                well = job.poll()
                if well is None and not late:
                    continue
                running.remove(job)
                room.append(job.card)
                if well is None:
                    job.stop()
                    failed += 1
                    say(f"stopped {job.run.id}")
                elif well:
                    rows.append(job.run.row(options))
                    write_rows(options.csv, rows)
                    say(f"{job.run.id}: {rows[-1]['books bits/byte']} bits a byte of books")
                else:
                    failed += 1
                    say(f"FAILED {job.run.id}\n{job.last_words()}")
            if late:
                failed += len(runs)
                if runs:
                    say(f"not begun: {', '.join(run.id for run in runs)}")
                break
            time.sleep(0.2)
    finally:
        for job in running:
            job.stop()
    return failed


def count(text):
    """An argument of at least 1."""
    if (n := int(text)) < 1:
        raise ValueError
    return n


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--work", required=True, help="packed texts and runs")
    parser.add_argument("--csv", required=True)
    parser.add_argument("--tokenizer", default=os.path.join(HERE, "..", "models", "stories", "tokenizer.json"))
    parser.add_argument("--mix", default="books=60,modern=40", help="shares of the texts to train on")
    parser.add_argument("--cards", type=count, help="default: all")
    parser.add_argument("--side-by-side", type=count, default=3, help="runs on each card")
    parser.add_argument("--tokens", type=count, default=4096, help="tokens a row")
    parser.add_argument("--step-tokens", type=count, default=65536, help="tokens a step")
    parser.add_argument("--piece", type=count, default=4096, help="of probe.py")
    parser.add_argument("--long-piece", type=count, default=16384, help="of probe.py")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then start no run, and stop those that go on, to be resumed")
    parser.add_argument("--save-every", type=float, default=120, help="seconds")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("runs", nargs="+", metavar="SHAPE:MILLIONS[:OPTION=VALUE]...")
    options = parser.parse_args(argv)
    rows = read_rows(options.csv)
    try:
        if options.step_tokens % options.tokens:
            raise ValueError(f"--step-tokens {options.step_tokens} is no multiple of --tokens {options.tokens}")
        shares(options.mix)
        failed = sweep(options, wanted(options, rows), rows)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:  # what ran is stopped, to be resumed
        sys.exit(130)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is stopped too
    main()
