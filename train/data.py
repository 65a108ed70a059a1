"""Packed token ids: documents of text, each followed by the end-of-text id, in one flat array on disk.

NAME.bin      the ids, little-endian uint16 where the vocabulary fits, else uint32
NAME.offsets  little-endian int64 [documents+1]: where each document starts; the last entry is the number of tokens
NAME.json     the manifest: dtype, vocabulary, hashes of tokenizer and data, documents, tokens, bytes of text, sources

    python3 data.py pack --tokenizer tokenizer.json --out NAME.bin FILE[.xz][@FIRST:LAST]...
    python3 data.py check NAME.bin [--tokenizer tokenizer.json]
"""

import argparse
import hashlib
import itertools
import json
import os
import sys
from array import array

import numpy as np

import bpe
import corpus

FORMAT = "photon-packed-1"


class Packed:
    """`ids` [tokens] and `offsets` [documents+1], both memory-mapped, and the `manifest`."""

    def __init__(self, ids, offsets, manifest):
        self.ids, self.offsets, self.manifest = ids, offsets, manifest

    def __len__(self):
        return len(self.ids)

    def document(self, index):
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


def encoded(texts, tokenizer):
    """(text, ids) of each text; where Hugging Face's tokenizers is installed, by it, on all cores."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        for text in texts:
            yield text, tokenizer.encode(text)
        return
    fast = Tokenizer.from_str(tokenizer.source.decode())
    texts = iter(texts)
    while some := list(itertools.islice(texts, 512)):
        for text, encoding in zip(some, fast.encode_batch(some, add_special_tokens=False)):
            yield text, encoding.ids


def pack(specs, tokenizer, path):
    """Encodes the documents of `specs` (see corpus.py) and writes `path` (NAME.bin), NAME.offsets and NAME.json."""
    base = _base(path)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer has no {bpe.EOS}: documents could not be told apart")
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    offsets, text_bytes, digest = [0], 0, hashlib.sha256()
    with open(base + ".bin.tmp", "wb") as file:
        for spec in specs:
            for text, ids in encoded(corpus.documents(spec), tokenizer):
                ids = array("H" if dtype == "uint16" else "I", ids)
                ids.append(tokenizer.eos_token_id)
                data = np.asarray(ids).astype("<" + np.dtype(dtype).str[1:]).tobytes()
                file.write(data)
                digest.update(data)
                offsets.append(offsets[-1] + len(ids))
                text_bytes += len(text.encode("utf-8"))
    offset_data = np.array(offsets, "<i8").tobytes()
    with open(base + ".offsets.tmp", "wb") as file:
        file.write(offset_data)
    manifest = {
        "format": FORMAT, "dtype": dtype, "vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.eos_token_id,
        "tokenizer_sha256": tokenizer.digest, "data_sha256": digest.hexdigest(),
        "offsets_sha256": hashlib.sha256(offset_data).hexdigest(),
        "documents": len(offsets) - 1, "tokens": offsets[-1], "bytes": text_bytes,
        "sources": [os.path.basename(spec) for spec in specs],
    }
    with open(base + ".json.tmp", "w") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")
    for suffix in (".bin", ".offsets", ".json"):
        os.replace(base + suffix + ".tmp", base + suffix)
    return manifest


def open_packed(path, tokenizer=None, verify=False):
    """Maps NAME.bin after checking it against its manifest.

    `tokenizer` (a bpe.Tokenizer) must be the one it was packed with. `verify` also reads all data and compares the hashes.
    """
    base = _base(path)
    with open(base + ".json") as file:
        manifest = json.load(file)

    def refuse(why):
        raise ValueError(f"{base}.bin: {why}: pack it again with data.py")

    if manifest.get("format") != FORMAT:
        refuse(f"the manifest's format is {manifest.get('format')!r}, not {FORMAT!r}")
    dtype, vocab = manifest["dtype"], manifest["vocab_size"]
    if dtype not in ("uint16", "uint32") or not 0 < vocab <= 1 << (8 * np.dtype(dtype).itemsize):
        refuse(f"dtype {dtype!r} does not hold a vocabulary of {vocab}")
    if tokenizer is not None:
        if tokenizer.vocab_size != vocab:
            refuse(f"packed with a vocabulary of {vocab}, but the tokenizer has {tokenizer.vocab_size}")
        if tokenizer.digest != manifest["tokenizer_sha256"]:
            refuse(f"packed with tokenizer {manifest['tokenizer_sha256'][:12]}, not with {tokenizer.digest[:12]}")
    width, tokens, documents = np.dtype(dtype).itemsize, manifest["tokens"], manifest["documents"]
    for suffix, want in ((".bin", tokens * width), (".offsets", (documents + 1) * 8)):
        size = os.path.getsize(base + suffix)
        if size != want:
            refuse(f"{os.path.basename(base + suffix)} has {size} bytes, the manifest says {want}")
    if not tokens:
        refuse("it holds no token")
    ids = np.memmap(base + ".bin", "<" + np.dtype(dtype).str[1:], "r")
    offsets = np.memmap(base + ".offsets", "<i8", "r")
    if offsets[0] != 0 or offsets[-1] != tokens or (np.diff(offsets) < 1).any():
        refuse("its document offsets do not rise from 0 to the number of tokens")
    if verify:
        for name, array_ in (("data", ids), ("offsets", offsets)):
            if hashlib.sha256(array_.data).hexdigest() != manifest[name + "_sha256"]:
                refuse(f"the {name} do not hash to what the manifest says")
        if int(ids.max()) >= vocab:
            refuse(f"it holds id {int(ids.max())}, the vocabulary ends at {vocab - 1}")
    return Packed(ids, offsets, manifest)


def _base(path):
    if not path.endswith(".bin"):
        raise ValueError(f"{path}: a packed file's name ends in .bin")
    return path[: -len(".bin")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("pack")
    verb.add_argument("--tokenizer", required=True)
    verb.add_argument("--out", required=True)
    verb.add_argument("files", nargs="+")
    verb = verbs.add_parser("check")
    verb.add_argument("--tokenizer")
    verb.add_argument("packed")
    options = parser.parse_args()
    tokenizer = bpe.load(options.tokenizer) if options.tokenizer else None
    if options.verb == "pack":
        manifest = pack(options.files, tokenizer, options.out)
    else:
        manifest = open_packed(options.packed, tokenizer, verify=True).manifest
    json.dump(manifest, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
