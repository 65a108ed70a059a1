"""A checkpoint of train.py, or a model directory -> a model directory.

    python3 export.py CHECKPOINT DIR --tokenizer tokenizer.json --form I8 [--keep BF16] [--shards 3] [--name NAME] [--notes FILE.md]
        [--average CHECKPOINT]... [--memory-window ROWS] [--temperature T] [--with FILE]...

config.json             model.py's configuration
model.safetensors       weights as F32, F16, BF16, or the int8 form of tensorfile.py; or shards and an index
tokenizer.json          copied, without white space
generation_config.json  sampling defaults
README.md               the model card in Hugging Face's form; `--notes` adds what only its trainer knows: data, licences, figures
golden.json             logits for `photon verify`: of each of `rows`, the values at 16 `indices` and the logsumexp over the
                        vocabulary, computed in float64 from the weights as stored; they hold to `tolerance` times the
                        largest of their absolute values

--average        the weights are the mean of these checkpoints and the first
--memory-window  memories show the last ROWS of what they have, for example as many as a row of training held: what is
                 further back than ever in training is read worse than not at all
--temperature    logits are divided by T, for a model that believes too much in what it knows: choose T by text that
                 training has not seen
--with           a file that goes along as it is, for example chat_template.jinja, or a generation_config.json in place
                 of the usual one
"""

import argparse
import json
import os
import sys

import numpy as np
import torch

import bpe
import evaluate
import golden
import tensorfile
import tensors

GOLDEN_TOKENS, GOLDEN_LOGITS = 37, 16
SENTENCE = ("The lantern on the hill had not been lit for nine winters, and yet this evening, while the geese were quarrelling "
            "over a crust of bread, Mara saw it glow. \"Who is up there?\" she whispered, and reached for her boots.")


def load(path):
    """The configuration and {name: float array} of a checkpoint or a model directory."""
    model = evaluate.load(path)
    return model.cfg, {name: x.float().numpy() for name, x in model.state_dict().items()}


def average(paths):
    """The configuration and the mean of the weights of checkpoints of one shape."""
    cfg, weights = load(paths[0])
    for path in paths[1:]:
        other, more = load(path)
        if other != cfg:
            raise ValueError(f"{path}: its configuration is not that of {paths[0]}: only checkpoints of one shape can be averaged")
        weights = {name: x + more[name] for name, x in weights.items()}
    return cfg, {name: x / np.float32(len(paths)) for name, x in weights.items()}


def cooled(cfg, weights, temperature):
    """The weights of the model whose logits are divided by the temperature: the norm before them is smaller."""
    name = "model.norm.weight" if cfg.flat else "levels.0.decoder.norm.weight"
    return {**weights, name: weights[name] / np.float32(temperature)}


def export(cfg, weights, directory, tokenizer_path, form, keep="F32", shards=1, name="", notes="", sentence=SENTENCE, along=()):
    """Writes the directory and returns the stored tensors."""
    tokenizer = bpe.load(tokenizer_path)
    if tokenizer.vocab_size > cfg.vocab_size or tokenizer.eos_token_id != cfg.eos_token_id:
        raise ValueError(f"{tokenizer_path}: {tokenizer.vocab_size} tokens, end {tokenizer.eos_token_id}; the model has "
                         f"{cfg.vocab_size}, end {cfg.eos_token_id}: give the tokenizer that it was trained with")
    ids = tokenizer.encode(sentence)[:GOLDEN_TOKENS]
    if len(ids) < GOLDEN_TOKENS:
        raise ValueError(f"the golden sentence has {len(ids)} tokens, {GOLDEN_TOKENS} are needed: give a longer one")
    with open(tokenizer_path, encoding="utf-8") as f:
        shared = json.load(f)
    copies = {}  # read first: they may be the directory's own
    for path in along:
        with open(path, "rb") as f:
            copies[os.path.basename(path)] = f.read()
    os.makedirs(directory, exist_ok=True)
    stored = tensorfile.store(weights, form, keep)
    tensorfile.write_model(directory, stored, shards)
    with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(shared, f, ensure_ascii=False, separators=(",", ":"))
    _write_json(directory, "config.json", cfg.to_dict())
    _write_json(directory, "generation_config.json", {
        "eos_token_id": cfg.eos_token_id, "do_sample": True,
        "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05})
    _write_json(directory, "golden.json", golden_block(cfg, stored, ids), indent=None)
    with open(os.path.join(directory, "README.md"), "w", encoding="utf-8") as file:
        file.write(card(cfg, stored, name or os.path.basename(os.path.normpath(directory)), form, keep, notes))
    for copied, content in copies.items():
        with open(os.path.join(directory, copied), "wb") as file:
            file.write(content)
    return stored


@torch.no_grad()
def golden_block(cfg, stored, ids):
    logits = golden.load(cfg, stored)(torch.tensor([ids]))[0].numpy()
    rows = sorted({0, 1, len(ids) // 2, len(ids) - 1})
    block = {"ids": ids, "rows": rows, "indices": [], "values": [], "logsumexp": [], "tolerance": 1e-4}
    for row in logits[rows]:
        # Half of them where the probability lies, half spread over the vocabulary.
        top = np.argsort(-row, kind="stable")[: GOLDEN_LOGITS // 2]
        spread = np.setdiff1d(np.arange(len(row)), top)
        spread = spread[np.linspace(0, len(spread) - 1, GOLDEN_LOGITS - len(top)).astype(int)]
        indices = np.concatenate((top, spread))
        block["indices"].append(indices.tolist())
        block["values"].append([float(f"{x:.9g}") for x in row[indices]])
        block["logsumexp"].append(float(f"{np.logaddexp.reduce(row):.9g}"))
    return block


def card(cfg, stored, name, form, keep, notes):
    dtypes = f"matrices int8 in groups of {tensorfile.GROUP} with BF16 scales, vectors {keep}" if form == "I8" else form
    if cfg.flat:
        kind, shape = "flat transformer (LLaMA)", f"{cfg.stack.num_hidden_layers} layers of width {cfg.stack.hidden_size}"
    else:
        kind = "PHOTON hierarchical language model"
        shape = "; ".join(
            [f"token encoder {_describe(s)}" for s in (cfg.token_encoder,) if s]
            + [f"level {i}: chunks of {l.chunk_size}, encoder {_describe(l.encoder)}, decoder {_describe(l.decoder)}"
               + "".join(map(_memory, l.decoder.memories)) for i, l in enumerate(cfg.levels, 1)])
    size = sum(array.nbytes for _, array in stored.values())
    return f"""---
language: en
license: other
library_name: photon
pipeline_tag: text-generation
tags: [photon, {"flat" if cfg.flat else "hierarchical"}]
---

# {name}

A {kind} for [photon](https://github.com/photon-lm/photon), which runs it with `photon run -model DIR`.

| | |
|---|---|
| parameters | {tensors.count(cfg):,} |
| architecture | {shape} |
| vocabulary | {cfg.vocab_size:,}, byte-level BPE |
| weights | {dtypes}; {size:,} bytes |

`photon verify DIR` checks the files and recomputes the logits in `golden.json`, which a separate implementation computed
in float64 from these weights.
""" + (f"\n{notes.strip()}\n" if notes.strip() else "")


def _describe(stack):
    window = f", window {stack.sliding_window}" if stack.sliding_window else ""
    return f"{stack.num_hidden_layers} × {stack.hidden_size}{window}"


def _memory(m):
    of = f"the children of level-{m.level} units" if m.unpack else f"level-{m.level} units" if m.level else "tokens"
    size, last = 2 * m.num_key_value_heads * m.head_dim, f"the last {m.sliding_window:,} of " * bool(m.sliding_window)
    return f", which reads a memory of {last}{of} ({size} elements each) in layer{'s' * (len(m.layers) > 1)} {', '.join(map(str, m.layers))}"


def _write_json(directory, name, value, indent=1):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=indent)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("directory")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--form", choices=["F32", "F16", "BF16", "I8"], default="BF16")
    parser.add_argument("--keep", choices=["F32", "BF16"], default="F32", help="dtype of vectors beside int8 matrices")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--name", default="")
    parser.add_argument("--notes", help="Markdown that goes to the end of the model card")
    parser.add_argument("--average", action="append", default=[], metavar="CHECKPOINT")
    parser.add_argument("--memory-window", type=int, metavar="ROWS")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T")
    parser.add_argument("--with", action="append", default=[], metavar="FILE", dest="along")
    parser.add_argument("--sentence", default=SENTENCE, help="text whose first tokens golden.json is computed on")
    options = parser.parse_args()
    notes = ""
    if options.notes:
        with open(options.notes, encoding="utf-8") as file:
            notes = file.read()
    try:
        cfg, weights = average([options.checkpoint, *options.average])
        for memory in (m for level in cfg.levels for m in level.decoder.memories):
            memory.sliding_window = memory.sliding_window if options.memory_window is None else options.memory_window
        weights = cooled(cfg, weights, options.temperature)
        export(cfg, weights, options.directory, options.tokenizer, options.form, options.keep, options.shards, options.name,
               notes, options.sentence, options.along)
    except (ValueError, OSError) as error:
        sys.exit(f"export.py: {error}")


if __name__ == "__main__":
    main()
