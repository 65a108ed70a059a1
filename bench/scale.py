#!/usr/bin/env python3
"""Many long chats on many machines, simulated from measured service times: the tables and the plot of docs/scale.md.

    python3 bench/scale.py                    reads docs/results/speed.csv and paper.csv, fills the page: some minutes
    python3 bench/scale.py --price 0.3        prints the tables for other assumptions, and leaves the page alone

The page says what is measured and what is assumed; bench/chats.py is the simulation.
"""

import argparse
import math
import os
from dataclasses import dataclass, fields, replace

import results
from chats import TEXTS, simulate
from results import digits, page, table

GIB = 1 << 30
BANDWIDTH = 20e9  # bytes a second that two cores read: docs/speed.md has 20 to 30 on the machine of these rows
TABLES = {"15M": "speed.csv", "600M": "paper.csv"}
FORMS = ("vanilla", "rival", "memory", "bounded")
# How much more many texts decode than one, at the beginning of a text: docs/speed.md, "Many texts together". Of the embedded model
# for all forms of 15M, of flat-134m for those of 600M, unless paper.csv has a row long-many.
GAINS = {"15M": {1: 1, 8: 3.7, 32: 4.35, 128: 4.1}, "600M": {1: 1, 8: 4.0, 32: 6.4}}


@dataclass
class Given:
    """What is assumed."""
    chats: float = 10000  # open at a time
    context: int = 32768  # tokens of a chat; it opens with so many to read
    turns: float = 16  # of a chat, in the mean; geometric
    asked: int = 256  # tokens of a turn to read
    answer: float = 256  # tokens to write, in the mean; exponential
    think: float = 120  # seconds between an answer and the next turn, in the mean; exponential
    memory: float = 16  # GiB of a machine
    price: float = 0.10  # of a machine-hour
    network: float = 1.25e9  # bytes a second into a machine
    coding: float = 2e8  # bytes a second at which a snapshot is written, and read
    first: float = 3  # seconds to the first token of an answer that 99 % shall have
    pace: float = 10  # tokens a second that 99 % of answers shall come at, at least
    patience: float = 2  # times the reading of a chat's beginning alone that half of the chats may wait for their first answer, and `first`


class Curve:
    """What changes with depth: straight between measured depths, and on beyond them."""

    def __init__(self, points):
        self.points = sorted(points.items())

    def at(self, depth):
        n = next((n for n in range(1, len(self.points) - 1) if depth <= self.points[n][0]), len(self.points) - 1)
        (a, x), (b, y) = self.points[n - 1], self.points[n]
        return x + (y - x) * (depth - a) / (b - a)

    def sum(self, end):
        """The integral from 0."""
        borders = [0] + [d for d, _ in self.points if 0 < d < end] + [end]
        return sum((b - a) * (self.at(a) + self.at(b)) / 2 for a, b in zip(borders, borders[1:]))

    def reaches(self, depth):
        return depth <= self.points[-1][0]


@dataclass
class Form:
    name: str
    color: str
    state: Curve  # bytes of a text
    decode: Curve = None  # seconds a token, of one text alone; None: not measured on a quiet machine
    prefill: Curve = None
    gain: dict = None  # {texts: how much more they decode than one}, at the beginning of a text
    weights: float = 0  # bytes of the model in memory
    reads: Curve = None  # bytes of keys and values that a decoded token reads

    def more(self, n):
        """How much more n texts decode than one at the beginning of a text: straight over the logarithm, and the last figure beyond it."""
        known = list(self.gain.items()) + [(1 << 30, list(self.gain.values())[-1])]
        (a, x), (b, y) = next((p, q) for p, q in zip(known, known[1:]) if n < q[0])
        return x + (y - x) * math.log(n / a) / math.log(b / a)

    def round(self, n, depth):
        """Seconds in which n texts get a token each. What reads a text's own past gains nothing from the others."""
        return n * (self.decode.at(0) / self.more(n) + self.decode.at(depth) - self.decode.at(0))

    def snapshot(self, depth):
        return self.state.at(depth) + 8 * depth  # the tokens of the text are part of it

    def moved(self, given):
        """Seconds of a processor and of the network that a session's move takes."""
        size = self.snapshot(given.context)
        return 2 * size / given.coding, size / given.network

    def held(self, given):
        """Texts that a machine has memory for; a GiB is for the program and what it works with."""
        return int(((given.memory - 1) * GIB - self.weights) / self.state.at(given.context))

    def service(self, given):
        """Seconds of a machine for a turn, its share of reading the chat's beginning included, with as many texts together as is best."""
        n = range(1, max(1, min(TEXTS, self.held(given))) + 1)
        token = min(self.round(i, given.context) / i for i in n)
        return given.asked * self.prefill.at(given.context) + self.prefill.sum(given.context) / given.turns + given.answer * token

    def least(self, given):
        """Machines below which turns come in faster than they are done: Little's law, no one waits."""
        return given.chats / given.think * self.service(given)


def forms(size, rows):
    """The forms of a size, from the rows of its table."""
    out = []
    found = None if size == "15M" else results.Rows(rows)
    for key in FORMS:
        name, color = results.FORMS[key]
        if size == "15M":
            at = {int(r["depth"]): r for r in rows if r["shape"] == results.TRAINED[key]}
            pick = lambda column, f: Curve({d: f(float(r[column])) for d, r in at.items()})
            out.append(Form(name, color, pick("state bytes", float), pick("decode tokens/s", lambda x: 1 / x),
                            pick("prefill tokens/s", lambda x: 1 / x), GAINS[size]))
            continue
        preset = f"{key}-600m"
        depths = [d for d in found.depths("long") if found.find(preset, "long", depth=d)]

        def curve(column, f=float):
            points = {d: found.value(column, preset, "long", depth=d) for d in depths}
            points = {d: f(x) for d, x in points.items() if x}
            return Curve(points) if len(points) > 1 else None
        form = Form(name, color, curve("state"), curve("decode_per_second", lambda x: 1 / x), curve("prefill_per_second", lambda x: 1 / x),
                    GAINS[size], found.value("model_bytes", preset, "long", depth=depths[-1]), curve("kv_read"))
        for d in depths if form.decode else []:  # the deepest row of many texts tells what they gain
            many, n = (found.value(c, preset, "long-many", depth=d) for c in ("decode_per_second", "texts"))
            if many and n > 1:
                rest = 1 / many - (form.decode.at(d) - form.decode.at(0))
                form.gain = {1: 1, int(n): max(1, min(n, form.decode.at(0) / rest if rest > 0 else n))}
        out.append(form)
    return out


def enough(form, given):
    """(machines, what chats see): the fewest, within 3 %, that give what is wanted; None where no number does."""
    if form.held(given) < 1 or form.round(1, given.context) > 1 / given.pace or given.asked * form.prefill.at(given.context) > given.first:
        return None
    read = form.prefill.sum(given.context)
    seconds = min(max(400, 5 * read), 2000)
    low = max(0, math.ceil(form.least(given)) - 1)
    good, step = None, max(1, low // 8)
    n = low + step
    while not good or n - low > max(1, 0.03 * n):
        tried = (low + n) // 2 if good else n
        out = simulate(form, given, tried, seconds, seconds / 3)
        if out["first"] <= given.first and out["pace"] >= given.pace and out["opening"] <= given.patience * read + given.first:
            n, good = tried, out
        else:
            low = tried
            if not good:
                n, step = n + step, 2 * step
                if n > 4 * given.chats:
                    return None
    return n, good


def chats_table(found, given):
    lines, million = [], 1e6 * given.price / 3600 / (given.chats / given.think * given.answer)  # written tokens, on a machine
    for f in found:
        far = "" if not f.decode or f.decode.reaches(given.context) and f.prefill.reaches(given.context) else "~"
        line = [f.name, digits(f.state.at(given.context) / 1e6), digits(given.chats * f.state.at(given.context) / GIB),
                f"{math.ceil(given.chats / f.held(given)):,}" if f.held(given) else "does not fit"]
        if f.reads:
            line.append(digits(given.chats / given.think * given.answer * f.reads.at(given.context) / BANDWIDTH))
        if not (f.decode and f.prefill):
            lines.append(line + ["not measured on a quiet machine yet"] + [""] * 8)
            continue
        least, best = f.least(given), enough(f, given)
        line += [far + f"{1 / f.decode.at(given.context):,.0f}", far + digits(f.prefill.sum(given.context)), far + f"{math.ceil(least):,}"]
        if best:
            n, out = best
            line += [far + f"{n:,}", digits(out["first"]), digits(out["pace"]), digits(out["opening"]),
                     f"{100 * out['moved'] / out['turns']:.0f} / {100 * out['fetched'] / out['turns']:.0f}", far + f"{n * million:.2g}"]
        else:
            line += ["none is enough", "", "", "", "", far + f"more than {least * million:.2g}"]
        lines.append(line)
    floor = [f"at {BANDWIDTH / 1e9:.0f} GB/s, that read keys and values"] if found[0].reads else []
    return table(["", "state, MB", "all states, GiB", "machines that hold them"] + floor +
                 ["one text alone, tok/s", "reads its beginning in, s", "machines that keep up", "that are enough", "first token, p99, s",
                  "slowest 1 % of answers, tok/s", "first answer of a chat, p50, s", "turns moved / fetched, %", "a million tokens"], lines)


def moves_table(found, given):
    lines = []
    for size, f in found:
        coding, wire = f.moved(given)
        again = f.prefill.sum(given.context) if f.prefill else None
        far = "~" if again and not f.prefill.reaches(given.context) else ""
        lines.append([f"{size}, {f.name}", digits(f.snapshot(given.context) / 1e6), digits(coding), digits(wire), far + digits(again) if again else "",
                      far + f"{again / (coding + wire):.1f} ×" if again else "",
                      far + f"{100 * coding / 2 / f.service(given):.0f}" if again and f.decode else "", digits(f.held(given) * f.snapshot(given.context) / given.network)])
    return table(["", "snapshot, MB", "written and read, s", "on the network, s", "reading the text again, s", "that to a move", "written after every turn, % more work", "all that a machine holds, on the network, s"],
                 lines)


def doubts_table(found, given):
    """Machines that keep up, where an assumption is another."""
    others = {"as above": {}, "texts of 256 tokens": {"context": 256}, "of 1,024": {"context": 1024}, "of 4,096": {"context": 4096},
              "of 131,072: rates extrapolated": {"context": 131072}, "chats of 4 turns instead of 16": {"turns": 4},
              "the beginning was read before": {"turns": 1e12}, "answers of 1,024 tokens": {"answer": 1024}, "turns of 2,048 tokens": {"asked": 2048},
              "half the time to think": {"think": given.think / 2}, "texts together gain nothing": None}
    lines = []
    for name, change in others.items():
        x = [(f if change is not None else replace(f, gain={1: 1})).least(replace(given, **change or {})) for f in found]
        lines.append([name] + [f"{math.ceil(v):,}" if v >= 10 else digits(v) for v in x] + [f"{x[0] / x[2]:.1f} ×", f"{x[1] / x[2]:.1f} ×"])
    return table(["machines that keep up"] + [f.name for f in found] + ["flat to memory", "rival to memory"], lines)


def picture(found, given):
    lengths = [256, 512, 1024, 2048, 4096, 8192, 16384, 32768]
    results.plot(os.path.join(results.DOCS, "plots", "scale.svg"), f"{given.chats:,.0f} chats, 15M: machines that keep up", "tokens of a chat", "machines",
                 [(f.name, f.color, [(n, f.least(replace(given, context=n))) for n in lengths]) for f in found])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for f in fields(Given):
        parser.add_argument("--" + f.name, type=type(f.default))
    changed = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    given = replace(Given(), **changed)
    found = {size: forms(size, results.read(name)) for size, name in TABLES.items()}
    tables = {size: chats_table(f, given) for size, f in found.items()}
    tables["moves"] = moves_table([(size, f) for size in found for f in found[size]], given)
    tables["doubts"] = doubts_table(found["15M"], given)
    if changed:
        print("\n\n".join(tables.values()))
        return
    picture(found["15M"], given)
    path = os.path.join(results.DOCS, "scale.md")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    for name, rows in tables.items():
        text = page.fill(text, name, rows)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
