"""Byte-level BPE: trains, reads and writes Hugging Face `tokenizer.json`.

Text is cut into pre-tokens by GPT-2's pattern, a pre-token is its UTF-8 bytes, and merges join neighbours inside it.
Ids: 0..255 the bytes by value, then one id a new merge result in the order of merging, last `<|endoftext|>`.

    python3 bpe.py train --vocab 4096 --out tokenizer.json FILE[.xz][@FIRST:LAST]...
    python3 bpe.py encode tokenizer.json TEXT
"""

import argparse
import hashlib
import heapq
import json
import os
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from itertools import chain

import corpus

EOS = "<|endoftext|>"

# Unicode's White_Space property. Python's own \s would add U+001C..U+001F.
SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def _category_class(initial):
    """The body of a character class that holds every character of the general category, as \\p{L} or \\p{N} would."""
    ranges, start = [], None
    for code in range(0x110001):
        inside = code < 0x110000 and unicodedata.category(chr(code))[0] == initial
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            ranges.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = None
    return "".join(ranges)


def _gpt2_pattern():
    letter, number = _category_class("L"), _category_class("N")
    return re.compile(
        f"'s|'t|'re|'ve|'m|'ll|'d| ?[{letter}]+| ?[{number}]+| ?[^{SPACE}{letter}{number}]+"
        f"|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]+"
    )


PATTERN = _gpt2_pattern()


def _byte_characters():
    """GPT-2's printable character of each byte: itself where it is printable Latin-1, else U+0100 and up."""
    printable = set(range(0x21, 0x7F)) | set(range(0xA1, 0xAD)) | set(range(0xAE, 0x100))
    characters, spare = [], 0x100
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(spare))
            spare += 1
    return characters


CHARACTER = _byte_characters()
BYTE = {character: byte for byte, character in enumerate(CHARACTER)}


def _spell(token):
    return "".join(CHARACTER[byte] for byte in token)


def _bytes(spelling):
    return bytes(BYTE[character] for character in spelling)


class Tokenizer:
    """A byte-level BPE vocabulary. `encode` treats an added token in the text as that token, as Hugging Face does."""

    def __init__(self, tokens, merges, added, source=b""):
        self.tokens = tokens  # id -> bytes
        self.merges = merges  # [(left bytes, right bytes)], first is strongest
        self.added = added  # content -> id
        self.source = source  # the file
        self.digest = hashlib.sha256(source).hexdigest()
        self.vocab_size = max(max(tokens), max(added.values(), default=0)) + 1
        self.eos_token_id = added.get(EOS)
        self._id = {token: id for id, token in tokens.items()}
        self._rank = {}  # (left id, right id) -> (rank, joined id)
        for rank, (left, right) in enumerate(merges):
            self._rank.setdefault((self._id[left], self._id[right]), (rank, self._id[left + right]))
        self._cache = {}
        longest_first = sorted(added, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if added else None

    def encode(self, text):
        ids = []
        pieces = self._split.split(text) if self._split else [text]
        for i, piece in enumerate(pieces):
            if i % 2:
                ids.append(self.added[piece])
            elif piece:
                ids.extend(chain.from_iterable(map(self._word, PATTERN.findall(piece))))
        return ids

    def decode(self, ids):
        contents = {id: content.encode() for content, id in self.added.items()}
        return b"".join(contents.get(id) or self.tokens[id] for id in ids).decode("utf-8", errors="replace")

    def _word(self, word):
        ids = self._cache.get(word)
        if ids is None:
            ids = tuple(self._merge(word.encode("utf-8")))
            if len(self._cache) < 1_000_000:
                self._cache[word] = ids
        return ids

    def _merge(self, word):
        ids = [self._id[word[i : i + 1]] for i in range(len(word))]
        while len(ids) > 1:
            best = min((self._rank[pair] + (pair,) for pair in zip(ids, ids[1:]) if pair in self._rank), default=None)
            if best is None:
                break
            _, joined, pair = best
            ids = _join(ids, pair, joined)
        return ids


def _join(ids, pair, joined):
    """Replaces each occurrence of `pair`, left to right, by `joined`."""
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(joined)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def load(path):
    with open(path, "rb") as file:
        data = file.read()
    spec = json.loads(data)
    model, pre = spec["model"], spec.get("pre_tokenizer") or {}
    if model.get("type") != "BPE" or pre.get("type") != "ByteLevel":
        raise ValueError(f"{path}: only model BPE with pre_tokenizer ByteLevel is read here, not "
                         f"{model.get('type')} with {pre.get('type')}: train one with bpe.py")
    if pre.get("add_prefix_space") or not pre.get("use_regex", True) or spec.get("normalizer"):
        raise ValueError(f"{path}: a prefix space, another pattern or a normalizer is not read here: train one with bpe.py")
    added = {token["content"]: token["id"] for token in spec.get("added_tokens", [])}
    tokens = {id: _bytes(spelling) for spelling, id in model["vocab"].items() if spelling not in added}
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    merges = [(_bytes(left), _bytes(right)) for left, right in merges]
    return Tokenizer(tokens, merges, added, data)


def save(path, merges):
    """Writes tokenizer.json: bytes, merge results, then the end-of-text token."""
    vocab = {character: byte for byte, character in enumerate(CHARACTER)}
    for left, right in merges:
        vocab.setdefault(_spell(left + right), len(vocab))
    eos = {"id": len(vocab), "content": EOS, "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
    vocab[EOS] = eos["id"]
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [eos], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [f"{_spell(left)} {_spell(right)}" for left, right in merges]},
    }
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(spec, file, ensure_ascii=False, indent=1)
        file.write("\n")
    os.replace(path + ".tmp", path)


def train(texts, vocab_size):
    """Merges, strongest first, that fill a vocabulary of `vocab_size` tokens, bytes and end of text included."""
    if vocab_size < 257:
        raise ValueError(f"a vocabulary of {vocab_size} is too small: 256 bytes and {EOS} need 257")
    try:
        import tokenizers
    except ImportError:
        return _train_own(count_words(texts), vocab_size)
    return _train_tokenizers(tokenizers, texts, vocab_size)


def count_words(texts):
    counts = Counter()
    for text in texts:
        counts.update(PATTERN.findall(text))
    return counts


def _train_tokenizers(tokenizers, texts, vocab_size):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1, min_frequency=2, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    return [(_bytes(left), _bytes(right)) for left, right in merges]


def _train_own(counts, vocab_size):
    """Merges the most frequent pair again and again; of equally frequent pairs the one of smaller ids.

    An index from a pair to the words that hold it confines each merge to those words. A heap entry whose count is
    out of date is put back with the true one.
    """
    words = [list(word.encode("utf-8")) for word in counts]
    weights = list(counts.values())
    tokens = [bytes([byte]) for byte in range(256)]
    id_of = {token: id for id, token in enumerate(tokens)}
    pair_count, holders = Counter(), defaultdict(set)
    for index, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pair_count[pair] += weights[index]
            holders[pair].add(index)
    heap = [(-count, pair) for pair, count in pair_count.items()]
    heapq.heapify(heap)

    merges = {}  # in order; a pair can arise anew when two merges spell the same token
    while len(tokens) < vocab_size - 1 and heap:
        count, pair = heapq.heappop(heap)
        if -count != pair_count[pair]:
            if pair_count[pair] > 0:
                heapq.heappush(heap, (-pair_count[pair], pair))
            continue
        if -count < 2:
            break
        left, right = pair
        joined = tokens[left] + tokens[right]
        merges[tokens[left], tokens[right]] = None
        if joined not in id_of:
            id_of[joined] = len(tokens)
            tokens.append(joined)
        changed = Counter()
        for index in holders.pop(pair):
            old, weight = words[index], weights[index]
            new = words[index] = _join(old, pair, id_of[joined])
            for p in zip(old, old[1:]):
                changed[p] -= weight
            for p in zip(new, new[1:]):
                changed[p] += weight
                holders[p].add(index)
        for p, difference in changed.items():
            pair_count[p] += difference
            if difference > 0:
                heapq.heappush(heap, (-pair_count[p], p))
        del pair_count[pair]
    return list(merges)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train")
    verb.add_argument("--vocab", type=int, default=4096)
    verb.add_argument("--out", required=True)
    verb.add_argument("files", nargs="+")
    verb = verbs.add_parser("encode")
    verb.add_argument("tokenizer")
    verb.add_argument("text")
    options = parser.parse_args()
    if options.verb == "encode":
        print(*load(options.tokenizer).encode(options.text))
        return
    save(options.out, train(chain.from_iterable(map(corpus.documents, options.files)), options.vocab))
    tokenizer = load(options.out)
    print(f"{options.out}: {tokenizer.vocab_size} tokens, {len(tokenizer.merges)} merges, sha256 {tokenizer.digest}",
          file=sys.stderr)
    if tokenizer.vocab_size != options.vocab:
        sys.exit(f"{options.out}: the text has pairs for {tokenizer.vocab_size} tokens only, not {options.vocab}: give more text")


if __name__ == "__main__":
    main()
