"""Tables and plots of docs/quality.md, from the rows that sweep.py wrote and the speeds that `photon bench` measured.

    python3 quality.py ../docs

reads results/forms.csv, long.csv and speed.csv, and writes plots/*.svg and the tables between the marks.
"""

import csv
import json
import math
import os
import re
import sys

import cost
import page
import shapes

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 420, 64, 48
COLOURS = {"flat": "#7a7a7a", "rival": "#c2571a", "windows": "#b59f3b", "published": "#3b6fb5", "block": "#7b4fb0"}
NEW = "#1a7f4b"


def read(path):
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def colour(shape):
    return next((c for name, c in COLOURS.items() if shape.startswith(name)), NEW)


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


class Plot:
    """Points and lines on two axes, each linear or logarithmic."""

    def __init__(self, title, x, y, xs, ys, logarithmic=False):
        self.out, self.logarithmic, self.named = [], logarithmic, set()
        self.x0, self.x1 = self.at(min(xs)), self.at(max(xs))
        pad = (max(ys) - min(ys)) * 0.08 or 0.1
        self.y0, self.y1 = min(ys) - pad, max(ys) + pad
        pad = (self.x1 - self.x0) * 0.06 or 0.1
        self.x0, self.x1 = self.x0 - pad, self.x1 + 3 * pad
        self.text(WIDTH / 2, 20, title, "middle", 15)
        self.text(WIDTH / 2, HEIGHT - 8, x, "middle")
        self.out.append(f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2})">{escaped(y)}</text>')
        self.out.append(f'<path d="M{LEFT} 32V{HEIGHT - BOTTOM}H{WIDTH - 16}" fill="none" stroke="currentColor"/>')
        digits = max(0, 2 - math.floor(math.log10(self.y1 - self.y0)))
        for i in range(6):
            value = self.y0 + (self.y1 - self.y0) * i / 5
            self.text(LEFT - 6, self.down(value) + 4, f"{value:.{digits}f}", "end", 11)
        for value in self.marks():
            self.text(self.across(value), HEIGHT - BOTTOM + 16, f"{value:g}", "middle", 11)

    def at(self, x):
        return math.log2(x) if self.logarithmic else x

    def marks(self):
        if self.logarithmic:
            first, last = math.ceil(self.x0), math.floor(self.x1)
            return [2.0**k for k in range(first, last + 1, max(1, (last - first) // 6))]
        return [round(self.x0 + (self.x1 - self.x0) * i / 5, -int(math.log10(max(1, self.x1))) + 1) for i in range(1, 5)]

    def across(self, x):
        return LEFT + (WIDTH - 16 - LEFT) * (self.at(x) - self.x0) / (self.x1 - self.x0)

    def down(self, y):
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 32) * (y - self.y0) / (self.y1 - self.y0)

    def text(self, x, y, text, anchor="start", size=12):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escaped(text)}</text>')

    def point(self, x, y, label, paint):
        self.out.append(f'<circle cx="{self.across(x):.1f}" cy="{self.down(y):.1f}" r="4" fill="{paint}"><title>{escaped(label)}</title></circle>')
        # Seeds of one shape stand beside each other: their name is there once.
        if label not in self.named:
            self.text(self.across(x) + 7, self.down(y) + 4, label, size=11)
        self.named.add(label)

    def line(self, points, label, paint):
        path = "L".join(f"{self.across(x):.1f} {self.down(y):.1f}" for x, y in points)
        self.out.append(f'<path d="M{path}" fill="none" stroke="{paint}" stroke-width="2"/>')
        self.text(self.across(points[-1][0]) + 4, self.down(points[-1][1]) + 4, label, size=11)

    def save(self, path):
        page.save(path, WIDTH, HEIGHT, self.out)


def by_budget(rows):
    """{(millions of tokens, texts): rows}, largest budget first: only these are to be compared."""
    out = {}
    for row in rows:
        out.setdefault((round(int(row["tokens"]) / 1e6), row.get("texts", "")), []).append(row)
    return dict(sorted(out.items(), reverse=True))


def largest(rows):
    """The largest budget in millions of tokens, and its rows, of whatever texts: where a form has both, its bits differ
    by less than those of two seeds."""
    millions = max(round(int(row["tokens"]) / 1e6) for row in rows)
    return millions, [row for row in rows if round(int(row["tokens"]) / 1e6) == millions]


def named(r):
    return r["shape"] + (f" ({r['options']})" if r["options"] else "") + (f", seed {r['seed']}" if r["seed"] != "1" else "")


def books_of(row):
    """The millions of bytes of books that were there to train on."""
    match = re.search(r"books=(\d+)", row.get("texts") or "")
    return round(int(match[1]) / 1e6) if match else 105


def behind(row, first=64):
    """Nats a token of the pieces of books from position `first` on: what a model makes of a piece's cut is past."""
    nats = tokens = 0
    for key, value in row.items():
        match = re.fullmatch(r"books by position (\d+)-(\d+)", key)
        if match and value and int(match[1]) >= first:
            n = int(match[2]) - int(match[1])
            nats, tokens = nats + n * float(value), tokens + n
    return nats / tokens if tokens else None


def mean(values):
    """Of those that are known; None where none is."""
    known = [x for x in values if x is not None]
    return sum(known) / len(known) if known else None


def over(a, b):
    return f"{a / b:.3f}" if a and b else ""


def table(rows):
    """Markdown: a row a run, the ratios to the mean of flat models of the same budget and the usual learning rate."""
    flats = [r for r in rows if r["shape"] in ("flat", "flat-60m") and not r["options"]]
    flat, far_flat = mean([float(r["books bits/byte"]) for r in flats]), mean([behind(r) for r in flats])
    out = ["| run | parameters, M | decoded token, M multiply-adds: at 0 / 32k | prefilled token, M: at 0 / 32k | grows, elements a token | books, bits/byte | × flat | "
           "× flat behind 64 | gain 64 | gain 256 | gain 1,024 | stories, bits/byte |", "|" + "---|" * 12]
    for r in sorted(rows, key=lambda r: float(r["books bits/byte"])):
        cfg = shapes.config(r["shape"])
        near, far = cost.count(cfg), cost.count(cfg, 32768)
        bits = float(r["books bits/byte"])
        cells = [named(r), f"{near['parameters'] / 1e6:.1f}", f"{near['decode'] / 1e6:.1f} / {far['decode'] / 1e6:.0f}", f"{near['prefill'] / 1e6:.1f} / {far['prefill'] / 1e6:.0f}",
                 f"{near['growth']:g}", f"{bits:.4f}", over(bits, flat), over(behind(r), far_flat),
                 *(f"{float(r[f'gain {n}']):.4f}" for n in (64, 256, 1024)), r.get("stories bits/byte", "")]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def far_table(rows):
    """Markdown: runs on long rows, those of one length together: their cost, and what they have from far back."""
    length = lambda r: int(re.search(r"row=(\d+)", r["settings"])[1])
    ranges = (re.fullmatch(r"books by position (\d+)-(\d+)", k) for k in rows[0])
    far = {m[0]: f"nats at {int(m[1]):,} to {int(m[2]):,}" for m in ranges if m and int(m[1]) >= 1024}
    head = ["rows of", "shape", "decoded token behind 32k, M multiply-adds", "grows, elements a token",
            "books, bits/byte", *far.values(), "gain 1,024", "gain 4,096"]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in sorted(rows, key=lambda r: (length(r), float(r["books bits/byte"]))):
        cfg = shapes.config(r["shape"])
        cells = [f"{length(r):,}", r["shape"], f"{cost.count(cfg, 32768)['decode'] / 1e6:.1f}",
                 f"{cost.count(cfg)['growth']:g}", r["books bits/byte"],
                 *(r[k] for k in far), r["gain 1024"], r["gain 4096"]]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def worth(rows):
    """Markdown: what is lost, in nats a token, where a part is taken away."""
    out = []
    for r in rows:
        if r.get("worth"):
            parts = ", ".join(f"{name} {value:.3f}" for name, value in json.loads(r["worth"]).items())
            out.append(f"- **{named(r)}**, {books_of(r)} MB of books: {parts}")
    return "\n".join(out)


def positions(row):
    """(middle of a range of positions, nats) from the long texts."""
    out = []
    for key, value in row.items():
        match = re.fullmatch(r"long by position (\d+)-(\d+)", key)
        if match and value:
            out.append((math.sqrt(max(int(match[1]), 16) * int(match[2])), float(value)))
    return out


def plots(rows, speeds, out):
    os.makedirs(out, exist_ok=True)
    millions, rows = largest(rows)
    title = f"after {millions}M tokens"
    growth = lambda shape: cost.count(shapes.config(shape))["growth"]
    points = [(growth(r["shape"]) + 16, float(r["books bits/byte"]), r["shape"]) for r in rows]
    plot = Plot(f"Bits per byte of books against state, {title}", "elements a token that the state grows by, plus 16", "bits per byte",
                [p[0] for p in points], [p[1] for p in points], logarithmic=True)
    for x, y, name in points:
        plot.point(x, y, name, colour(name))
    plot.save(os.path.join(out, "state.svg"))

    # Of one text: where a shape has runs of both, the first that was trained on.
    curves = {}
    for r in sorted(rows, key=lambda r: (r["seed"], books_of(r))):
        if positions(r):
            curves.setdefault(r["shape"], positions(r))
    curves = list(curves.items())
    if curves:
        # What stands above this is off the scale: a model that fails beyond the rows it was trained on.
        top = 3.6
        kept = [(name, [(x, min(y, top)) for x, y in c]) for name, c in curves]
        plot = Plot(f"Nats a token of three long books by position, {title} in rows of 4,096", "position", f"nats a token (cut at {top})",
                    [x for _, c in kept for x, _ in c], [y for _, c in kept for _, y in c], logarithmic=True)
        for name, c in kept:
            plot.line(c, name, colour(name))
        plot.save(os.path.join(out, "position.svg"))

    measured = {(s["shape"], int(s["depth"])): float(s["decode tokens/s"]) for s in speeds}
    for depth in (0, 8192, 32768):
        points = [(measured[r["shape"], depth], float(r["books bits/byte"]), r["shape"]) for r in rows
                  if (r["shape"], depth) in measured]
        if points:
            plot = Plot(f"Bits per byte against speed behind {depth:,} tokens, {title}", "decoded tokens a second", "bits per byte",
                        [p[0] for p in points], [p[1] for p in points], logarithmic=True)
            for x, y, name in points:
                plot.point(x, y, name, colour(name))
            plot.save(os.path.join(out, f"speed-{depth}.svg"))


def speed_table(speeds):
    depths = sorted({int(s["depth"]) for s in speeds})
    names = list(dict.fromkeys(s["shape"] for s in speeds))
    at = {(s["shape"], int(s["depth"])): s for s in speeds}
    out = ["| shape | " + " | ".join(f"decode behind {d:,}" for d in depths) + " | " + " | ".join(f"prefill behind {d:,}" for d in depths) + " |",
           "|" + "---|" * (1 + 2 * len(depths))]
    for name in names:
        cells = [at[name, d][kind] if (name, d) in at else "" for kind in ("decode tokens/s", "prefill tokens/s") for d in depths]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    docs = sys.argv[1]
    rows, speeds = read(os.path.join(docs, "results", "forms.csv")), read(os.path.join(docs, "results", "speed.csv"))
    plots(rows, speeds, os.path.join(docs, "plots"))
    path = os.path.join(docs, "quality.md")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    for (millions, texts), some in by_budget(rows).items():
        text = page.fill(text, f"table {millions} {texts}".rstrip(), table(some))
    text = page.fill(text, "worth", worth(largest(rows)[1]))
    long = read(os.path.join(docs, "results", "long.csv"))
    if long:
        text = page.fill(text, "long rows", far_table(long))
    if speeds:
        text = page.fill(text, "speed", speed_table(speeds))
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
