"""Bits per byte of held-out text under a byte n-gram model, the yardstick of the README.

Interpolated Kneser-Ney with one discount an order. Each document is on its own, as in evaluate.py: both in training and in
scoring it follows order-1 zero bytes.

    python3 ngram.py --order 5 --heldout TEXT TRAIN...        each TEXT[.xz][@FIRST:LAST]
"""

import argparse
import json
import os

import numpy as np

import corpus


def grams(specs, order):
    """Every n-gram of the documents as a number of `order` bytes, the predicted byte lowest; and the bytes of text."""
    margin = bytes(order - 1)
    text = b"".join(margin + document.encode("utf-8") for spec in specs for document in corpus.documents(spec))
    codes = np.zeros(len(text) - order + 1, np.uint64)
    symbols = np.frombuffer(text, np.uint8)
    for i in range(order):
        codes = (codes << np.uint64(8)) | symbols[i : len(codes) + i]
    codes = codes[symbols[order - 1 :] != 0]  # the margin is never predicted; the text holds no zero byte
    return codes, len(codes)


class Table:
    """Counts of one order: of n-grams in the text at the top order, of the distinct bytes before them below."""

    def __init__(self, codes, counts):
        self.codes, self.counts = codes, counts
        self.contexts, first, self.kinds = np.unique(codes >> np.uint64(8), return_index=True, return_counts=True)
        self.totals = np.add.reduceat(counts, first)
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        self.discount = once / (once + 2 * twice) if once else 0.5

    def probability(self, codes, lower):
        """P(last byte | bytes before it), given the lower order's."""
        count = lookup(self.codes, self.counts, codes)
        total = lookup(self.contexts, self.totals, codes >> np.uint64(8))
        kinds = lookup(self.contexts, self.kinds, codes >> np.uint64(8))
        seen = np.maximum(total, 1)
        p = (np.maximum(count - self.discount, 0) + self.discount * kinds * lower) / seen
        return np.where(total > 0, p, lower)


def lookup(keys, values, wanted):
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def train(specs, order):
    codes, size = grams(specs, order)
    tables = [Table(*np.unique(codes, return_counts=True))]
    for n in range(order - 1, 0, -1):
        suffixes = tables[0].codes & np.uint64((1 << 8 * n) - 1)
        tables.insert(0, Table(*np.unique(suffixes, return_counts=True)))
    return tables, size


def bits(tables, codes):
    p = np.full(len(codes), 1 / 256)
    for n, table in enumerate(tables, 1):
        p = table.probability(codes & np.uint64((1 << 8 * n) - 1), p)
    return -np.log2(p).sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--order", type=int, default=5, choices=range(1, 9))
    parser.add_argument("--heldout", required=True)
    parser.add_argument("train", nargs="+")
    options = parser.parse_args()
    tables, trained = train(options.train, options.order)
    codes, size = grams([options.heldout], options.order)
    print(json.dumps({
        "file": os.path.basename(options.heldout), "order": options.order, "train_bytes": trained, "bytes": size,
        "ngrams": len(tables[-1].codes), "bits_per_byte": round(bits(tables, codes) / size, 4),
    }))


if __name__ == "__main__":
    main()
