"""Tables and plots of docs/results.md, from the rows that `photon bench -paper` wrote.

    python3 bench/results.py

reads docs/results/paper.csv and paper-xeon.csv, and writes docs/plots/paper-*.svg and the tables between the marks.

A rate with a dagger was measured while other programs took more than a tenth of the processors; one is left out where they took
more than a third. States and counts do not depend on that.
"""

import csv
import math
import os
import statistics
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
DOCS = os.path.join(ROOT, "docs")
sys.path.insert(0, os.path.join(ROOT, "train"))

import page  # noqa: E402
GIB = 1 << 30
BUSY, SPOILED = 0.1, 0.33
FORMS = {  # of a size: what it is called in tables, and its colour
    "vanilla": ("flat", "#7a7a7a"), "rival": ("rival", "#c2571a"), "block": ("block", "#7b4fb0"),
    "photon": ("PHOTON as published", "#3b6fb5"), "bounded": ("PHOTON, bounded", "#2aa5b8"), "memory": ("PHOTON with a memory", "#1a7f4b"),
}
TRAINED = {"vanilla": "flat", "rival": "rival", "block": "block", "photon": "published", "bounded": "published-bounded", "memory": "thin2-window32"}
PAPER = {"vanilla": "22.38", "block": "27.25", "photon": "29.91"}  # WikiText perplexity of its 600M models
SIZES = ["600m", "900m", "1.2b"]


def read(name):
    path = os.path.join(DOCS, "results", name)
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


class Row(dict):
    """A row of which a cell is a number, or None where it has nothing."""

    def number(self, column):
        rate = "second" in column or "_ms_" in column or column == "tpm"
        if not self.get(column) or rate and self.number("others") and self.number("others") > SPOILED:
            return None
        return float(self[column])

    @property
    def busy(self):
        return (self.number("others") or 0) > BUSY


class Rows:
    def __init__(self, rows):
        self.rows = [Row(r) for r in rows]

    def find(self, preset, test, depth=None, wanted=None, mode="hiergen", weights="int8"):
        for r in self.rows:
            if (r["preset"], r["test"], r["mode"], r["weights"]) == (preset, test, mode, weights) \
                    and depth in (None, int(r["depth"] or 0)) and wanted in (None, int(r["wanted"])):
                return r
        return None

    def value(self, column, preset, test, **which):
        r = self.find(preset, test, **which)
        return r.number(column) if r else None

    def depths(self, test):
        return sorted({int(r["depth"] or 0) for r in self.rows if r["test"] == test})


def forms(rows, size):
    """(preset, mode, name) of what has been measured."""
    have = {(r["preset"], r["mode"]) for r in rows.rows}
    out = []
    for form, (name, _) in FORMS.items():
        for mode, suffix in (("hiergen", ""), ("recgen", ", RecGen")):
            if (f"{form}-{size}", mode) in have:
                out.append((f"{form}-{size}", mode, name + suffix))
    return out


def digits(x):
    if x is None:
        return ""
    if x >= 99.95:
        return f"{x:,.0f}"
    return f"{x:.1f}" if x >= 9.995 else f"{x:.2f}" if x >= 0.095 else f"{x:.2g}"


def cell(row, column, scale=1.0, mark=True):
    x = row.number(column) if row else None
    if x is None:
        return ""
    return digits(x * scale) + ("†" if mark and row.busy else "")


def mib(x):
    return "" if x is None else digits(x / (1 << 20))


def ratio(a, b, figure="{:.1f} ×"):
    if not a or not b:
        return ""
    return "{:,.0f} ×".format(a / b) if a / b >= 100 else figure.format(a / b)


def table(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)] + ["| " + " | ".join(line) + " |" for line in lines])


def depth_name(depth):
    return f"{depth >> 20}M" if depth >= 1 << 20 else f"{depth >> 10}k" if depth >= 4096 else f"{depth:,}"


# Tables.

def loads(rows):
    """PF and DE: a text alone, and as many as there were time and memory for."""
    out = []
    for size, weights in [(size, "int8") for size in SIZES] + [(SIZES[0], "bf16")]:
        lines = []
        flat = {t: rows.find(f"vanilla-{size}", t, weights=weights) for t in ("pf", "de")}
        for preset, mode, name in forms(rows, size):
            one = {t: rows.find(preset, t, mode=mode, weights=weights) for t in ("pf", "de")}
            if not any(one.values()):
                continue
            line = [name]
            for t in ("pf", "de"):
                state, base = (r.number("state_text") if r else None for r in (one[t], flat[t]))
                stopped = [r for r in (one[t], flat[t]) if r and "stopped" in r["note"]]
                if stopped:  # texts of other lengths
                    line.append(mib(state) + f" at {int(one[t]['depth']) + int(one[t]['made']):,}")
                else:
                    over = base / state if state and base else 0
                    line.append(mib(state) + (f" (1/{over:.0f})" if over > 1.05 else ""))
            for t in ("pf", "de"):
                line += [cell(one[t], "tokens_per_second"), cell(one[t], "first_token_ms_p50"),
                         "/".join(filter(None, (cell(one[t], f"token_ms_{p}", mark=False) for p in ("p50", "p99"))))]
            lines.append(line)
        if lines:
            out.append(f"**{size.upper()}, {weights}**\n\n" + table(
                ["", "state, MiB, PF", "DE", "PF: tok/s", "first token, ms", "a token, ms, p50/p99", "DE: tok/s", "first token, ms", "a token, ms, p50/p99"], lines))
    return "\n\n".join(out)


def tpms(row):
    """TPM by three denominators, thousand tokens/s for each GiB of a text: its state; with its share of the weights; of all the memory that was taken."""
    if not row or not row.number("tokens_per_second"):
        return [None] * 3
    rate, texts = row.number("tokens_per_second") / 1e3, row.number("texts")
    return [rate * GIB / b for b in (row.number("state_text"), row.number("state_text") + row.number("model_bytes") / texts, row.number("peak_bytes") / texts)]


def tpm_table(rows, size="600m"):
    lines = []
    tests = [("pf-many", None, "PF"), ("de-many", None, "DE")] + [("long-many", d, f"behind {depth_name(d)}") for d in rows.depths("long-many")]
    for test, depth, label in tests:
        flat = tpms(rows.find(f"vanilla-{size}", test, depth=depth))
        for preset, mode, name in forms(rows, size):
            row = rows.find(preset, test, depth=depth, mode=mode)
            if not row or not row.number("tokens_per_second"):
                continue
            line = [label, name, f"{int(row['texts']):,} of {int(row['wanted']):,}", cell(row, "tokens_per_second")]
            line.append(ratio(row.number("tokens_per_second"), rows.value("tokens_per_second", f"vanilla-{size}", test, depth=depth)))
            for x, base in zip(tpms(row), flat):
                line.append(digits(x) + (f" ({ratio(x, base)})" if base and preset != f"vanilla-{size}" else ""))
            lines.append(line)
    return table(["load", "", "texts", "tok/s", "× flat", "TPM: state", "state and weights shared", "all memory"], lines)


def long_table(rows, size="600m"):
    lines = []
    for depth in rows.depths("long"):
        flat = rows.find(f"vanilla-{size}", "long", depth=depth)
        for preset, mode, name in forms(rows, size):
            row = rows.find(preset, "long", depth=depth, mode=mode)
            if not row:
                continue
            if not row["texts"]:
                lines.append([depth_name(depth), name, row["note"]] + [""] * 6)
                continue
            over, base = ["", ""], flat if preset != f"vanilla-{size}" else None
            if base:
                over = [ratio(row.number(c), base.number(c)) + "†" * base.busy
                        for c in ("prefill_per_second", "decode_per_second")]
            lines.append([depth_name(depth), name, digits(row.number("state") / 1e6), cell(row, "first_token_ms_p50", 1e-3),
                          cell(row, "prefill_per_second"), over[0], cell(row, "decode_per_second"), over[1],
                          ratio(row.number("first32_per_second"), row.number("next128_per_second"), "{:.2f}")])
    return table(["behind", "", "state, MB", "read in, s", "prefill, tok/s", "× flat", "decode, tok/s", "× flat", "first 32 to next 128"], lines)


def read_table(rows, size="600m"):
    """What a token reads, counted."""
    lines = []
    for preset, mode, name in forms(rows, size):
        cells = []
        for depth in rows.depths("long"):
            row = rows.find(preset, "long", depth=depth, mode=mode)
            cells.append(digits(row.number("kv_read") / 1e6) if row and row.number("kv_read") else "")
        row = rows.find(preset, "long", depth=0, mode=mode) or rows.find(preset, "de", mode=mode)
        if any(cells) and row and row.number("weights_read"):
            lines.append([name, digits(row.number("weights_read") / 1e6)] + cells)
    return table(["MB a token", "weights"] + [f"keys and values behind {depth_name(d)}" for d in rows.depths("long")], lines)


def samples_table(rows, size="600m"):
    counts = sorted({int(r["wanted"]) for r in rows.rows if r["test"] == "samples"})
    lines = []
    for preset, mode, name in forms(rows, size):
        found = [rows.find(preset, "samples", wanted=n, mode=mode) for n in counts]
        if not any(found):
            continue
        last = next(r for r in reversed(found) if r)
        first = next(r for r in found if r)
        lines.append([name] + [cell(r, "decode_per_second") for r in found] + [ratio(last.number("decode_per_second"), first.number("decode_per_second")),
                     digits(last.number("state_text") / 1e6), last["made"], cell(last, "first_token_ms_p50")])
    head = ["samples of one prompt of 2,048 tokens, tok/s", *map(str, counts), "most to one", "state of one more, MB",
            "of so many tokens", "first tokens, ms"]
    return table(head, lines)


def arrivals_table(rows, size="600m"):
    lines = []
    for preset, mode, name in forms(rows, size):
        r = rows.find(preset, "arrivals", mode=mode)
        if r:
            lines.append([name] + [cell(r, c) for c in ("seconds", "tokens_per_second", "first_token_ms_p50", "first_token_ms_p99", "token_ms_p50", "token_ms_p99",
                                                         "text_per_second_p50", "text_per_second_p1")] + [cell(r, "fairness", mark=False), r["note"]])
    return table(["64 requests", "all done in, s", "tok/s", "first token, ms: p50", "p99", "a token, ms: p50", "p99", "a text, tok/s: p50", "p1", "fairness", ""], lines)


def quality(trained):
    """Bits a byte of the forms that were trained alike, at 14 to 29M parameters: as many tokens of the same texts."""
    budget = max(round(int(r["tokens"]) / 1e6) for r in trained if r["shape"] == "flat")
    largest = [r for r in trained if round(int(r["tokens"]) / 1e6) == budget]
    texts = next(r["texts"] for r in largest if r["shape"] == TRAINED["photon"])
    alike = [r for r in largest if r["texts"] == texts]
    mean = lambda shape, column: sum(x := [float(r[column]) for r in alike if r["shape"] == shape]) / len(x)
    lines = []
    for form, (name, _) in FORMS.items():
        shape = TRAINED[form]
        bits = [f"{float(r['books bits/byte']):.3f}" for r in alike if r["shape"] == shape]
        over = mean(shape, "books bits/byte") / mean("flat", "books bits/byte")
        lines.append([name, PAPER.get(form, ""), ", ".join(bits), f"{over:.3f}", f"{mean(shape, 'gain 256'):.3f}"])
    return table(["", "the paper, 600M, 134 G tokens: WikiText perplexity", f"here, {budget}M tokens: books, bits a byte, a run each", "× flat",
                  "nats from beyond 256 tokens"], lines)


def figures(rows, size="600m"):
    """The figures that were set, and what was measured."""
    photons = ["photon", "bounded", "memory"]

    def told(x, *used):
        """A figure, marked where a row that it is of was measured on a busy machine."""
        return digits(x) + "†" * (x is not None and any(r.busy for r in used))

    def over(column, a, b):
        """The ratio of a column of two rows, of which there may be none."""
        x, y = (r.number(column) if r else None for r in (a, b))
        return told(x / y, a, b) if x and y else ""

    def against(column, test, **which):
        return lambda form: over(column, *(rows.find(f"{x}-{size}", test, **which) for x in (form, "vanilla")))

    def smaller(test, column="state_text", **which):
        """Flat's state to a text's, at the text's length: flat's grows by the same with each token."""
        def f(form):
            a, b = (rows.find(f"{x}-{size}", test, **which) for x in (form, "vanilla"))
            if not a or not b:
                return ""
            tokens = [int(r["depth"]) + (int(r["made"]) if test != "long" else 0) for r in (a, b)]
            return told(b.number(column) / a.number(column) * tokens[0] / tokens[1])
        return f

    def within(column, test, first, second):
        """Of two rows of one model, of one machine and of one day: else it is the machines that differ."""
        def f(form):
            a, b = (rows.find(f"{form}-{size}", test, **w) for w in (first, second))
            alike = a and b and (a["machine"], a["date"][:10]) == (b["machine"], b["date"][:10])
            return over(column, a, b) if alike else ""
        return f

    def sooner(form):
        """How much sooner the first token behind 2,048 comes: the medians of all rows that read such a prompt."""
        of = lambda x: [r for r in rows.rows
                        if (r["preset"], r["mode"], r["depth"]) == (f"{x}-{size}", "hiergen", "2048")
                        and r["weights"] == "int8" and r["test"] in ("pf", "samples")
                        and r.number("first_token_ms_p50")]
        a, b = of(form), of("vanilla")
        middle = lambda list: statistics.median(r.number("first_token_ms_p50") for r in list)
        return told(middle(b) / middle(a), *a, *b) if a and b else ""

    def tpm(test, **which):
        def f(form):
            used = [rows.find(f"{x}-{size}", test, **which) for x in (form, "vanilla")]
            a, b = (tpms(r)[0] for r in used)
            return told(a / b, *used) if a and b else ""
        return f

    def burst(depth):
        def f(form):
            r = rows.find(f"{form}-{size}", "long", depth=depth)
            first, then = (r.number(c) if r else None for c in ("first32_per_second", "next128_per_second"))
            return told(first / then, r) if first and then else ""
        return f

    def sample_state(form):
        r = rows.find(f"{form}-{size}", "samples", wanted=128)
        return told(r.number("state_text") / 1e6) if r else ""

    wanted = [
        ("flat's keys and values to a text's, PF", "12 (published), 45 (bounded)", smaller("pf")),
        ("flat's keys and values to a text's, DE", "12, 45", smaller("de")),
        ("flat's keys and values to a text's, behind 32k", "58 (bounded)",
         smaller("long", "state", depth=32768)),
        ("first token of a prompt of 2,048, sooner", "16", sooner),
        ("prefill behind 8k", "40", against("prefill_per_second", "long", depth=8192)),
        ("prefill behind 32k", "100", against("prefill_per_second", "long", depth=32768)),
        ("decode at the beginning", "2.4 (bounded)", against("decode_per_second", "long", depth=0)),
        ("decode behind 8k", "6 (bounded)", against("decode_per_second", "long", depth=8192)),
        ("decode behind 32k", "14 (bounded)", against("decode_per_second", "long", depth=32768)),
        ("decode behind 128k to that at the beginning", "0.85 (bounded)", within("decode_per_second", "long", {"depth": 131072}, {"depth": 0})),
        ("decode behind 1M to that at the beginning", "0.5 (bounded)", within("decode_per_second", "long", {"depth": 1 << 20}, {"depth": 0})),
        ("the first 32 tokens behind 128k to the next 128", "0.95", burst(131072)),
        ("tokens/s of all texts in equal memory, middle of DE", "4", against("decode_per_second", "long-many", depth=1152)),
        ("tokens/s of all texts in equal memory, behind 8k", "20",
         against("decode_per_second", "long-many", depth=8192)),
        ("tokens/s of all texts in equal memory, behind 32k", "80",
         against("decode_per_second", "long-many", depth=32768)),
        ("TPM, middle of DE", "200", tpm("long-many", depth=1152)),
        ("TPM behind 8k", "1,000", tpm("long-many", depth=8192)),
        ("TPM behind 32k", "5,000", tpm("long-many", depth=32768)),
        ("128 samples of one prompt, tokens/s to those of one", "5", within("decode_per_second", "samples", {"wanted": 128}, {"wanted": 1})),
        ("state of one more sample, MB, of as many tokens as were done (below)", "at most 2", sample_state),
    ]
    lines = []
    for what, want, f in wanted:
        cells = [f(form) for form in photons]
        if any(cells):
            lines.append([what, want] + cells)
    if not lines:
        return "Not measured on a quiet machine yet."
    return table(["against flat, × where nothing else stands", "wanted"] + [FORMS[p][0] for p in photons], lines)


def conditions(rows):
    """On what, and how disturbed."""
    if not rows.rows:
        return "No rows yet."
    machines = sorted({r["machine"] for r in rows.rows})
    dates = sorted(r["date"] for r in rows.rows)
    shares = sorted(r.number("others") or 0 for r in rows.rows)
    return (f"{len(rows.rows)} rows, {dates[0]} to {dates[-1]} UTC, {' and '.join(machines)}, kernel {', '.join(sorted({r['kernel'] for r in rows.rows}))}. "
            f"Other programs took {100 * shares[0]:.0f} to {100 * shares[-1]:.0f} % of the processors meanwhile, in the median {100 * shares[len(shares) // 2]:.0f} %; "
            f"a rate with † was measured beside more than {100 * BUSY:.0f} %, and {sum(s > SPOILED for s in shares)} rows beside more than "
            f"{100 * SPOILED:.0f} %: of those only states and counts are told.")


# Plots.

ZERO = 256  # where depth 0 stands on a logarithmic axis
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 72, 150, 36, 48


def plot(path, title, x, y, curves):
    """Curves [(name, colour, [(x, y)])] on two logarithmic axes."""
    points = [p for _, _, c in curves for p in c]
    if not points:
        return page.save(path, WIDTH, HEIGHT, [f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">{title}: not measured on a quiet machine yet</text>'])
    xs, ys = ([f(p[i]) for p in points] for i, f in ((0, math.log2), (1, math.log10)))
    x0, x1, y0, y1 = min(xs), max(xs) + 1e-9, math.floor(min(ys) * 2) / 2, math.ceil(max(ys) * 2) / 2 + 1e-9
    across = lambda v: LEFT + (WIDTH - RIGHT - LEFT) * (math.log2(v) - x0) / (x1 - x0)
    down = lambda v: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (math.log10(v) - y0) / (y1 - y0)
    out = []

    def text(at, line, words, anchor="start", size=12):
        out.append(f'<text x="{at:.1f}" y="{line:.1f}" text-anchor="{anchor}" font-size="{size}">{words}</text>')

    text((WIDTH - RIGHT + LEFT) / 2, 20, title, "middle", 15)
    text((WIDTH - RIGHT + LEFT) / 2, HEIGHT - 8, x, "middle")
    out.append(f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2})">{y}</text>')
    for power in range(math.ceil(y0), math.floor(y1) + 1):
        at = down(10.0**power)
        out.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".15"/>')
        text(LEFT - 6, at + 4, f"{10**power:,}" if power >= 0 else f"{10.0**power:g}", "end", 11)
    for v in sorted({p[0] for p in points}):
        text(across(v), HEIGHT - BOTTOM + 16, "0" if v == ZERO and "before" in x else depth_name(int(v)), "middle", 11)
    out.append(f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="currentColor"/>')
    labels = []
    for name, paint, c in curves:
        path_data = "L".join(f"{across(a):.1f} {down(b):.1f}" for a, b in c)
        out.append(f'<path d="M{path_data}" fill="none" stroke="{paint}" stroke-width="2"/>')
        out += [f'<circle cx="{across(a):.1f}" cy="{down(b):.1f}" r="3" fill="{paint}"><title>{name}: {digits(b)}</title></circle>' for a, b in c]
        labels.append([down(c[-1][1]), across(c[-1][0]), name, paint])
    last = -math.inf
    for label in sorted(labels):  # apart from one another
        label[0] = last = max(label[0], last + 14)
        out.append(f'<text x="{label[1] + 6:.1f}" y="{label[0] + 4:.1f}" font-size="11" fill="{label[3]}">{label[2]}</text>')
    page.save(path, WIDTH, HEIGHT, out)


def plots(rows, size="600m"):
    folder = os.path.join(DOCS, "plots")
    os.makedirs(folder, exist_ok=True)

    def curves(test, column, scale=1.0, along="depth"):
        out = []
        for form, (name, paint) in FORMS.items():
            points = sorted((max(ZERO if along == "depth" else 1, r.number(along) or 0), r.number(column) * scale) for r in rows.rows
                            if (r["preset"], r["test"], r["mode"], r["weights"]) == (f"{form}-{size}", test, "hiergen", "int8") and r.number(column))
            if points:
                out.append((name, paint, points))
        return out

    behind = "tokens of the text before"
    plot(os.path.join(folder, "paper-decode.svg"), "One text: decoded tokens a second", behind, "tokens/s", curves("long", "decode_per_second"))
    plot(os.path.join(folder, "paper-prefill.svg"), "One text: prefilled tokens a second", behind, "tokens/s", curves("long", "prefill_per_second"))
    plot(os.path.join(folder, "paper-state.svg"), "State of a text", behind, "MB", curves("long", "state", 1e-6))
    plot(os.path.join(folder, "paper-many.svg"), "As many texts as memory and time allow: tokens a second", behind, "tokens/s", curves("long-many", "decode_per_second"))
    plot(os.path.join(folder, "paper-samples.svg"), "Samples of one prompt of 2,048 tokens: tokens a second", "samples", "tokens/s", curves("samples", "decode_per_second", along="texts"))


def main():
    rows = Rows(read("paper.csv"))
    plots(rows)
    path = os.path.join(DOCS, "results.md")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    tables = {"conditions": conditions, "figures": figures, "loads": loads, "tpm": tpm_table, "long": long_table,
              "read": read_table, "samples": samples_table, "arrivals": arrivals_table}
    text = page.fill(text, "quality", quality(read("forms.csv")))
    for name, make in tables.items():
        text = page.fill(text, name, make(rows))
    xeon = Rows(read("paper-xeon.csv"))
    for name, make in {"figures xeon": figures, "long xeon": long_table, "tpm xeon": tpm_table}.items():
        text = page.fill(text, name, make(xeon))
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    main()
