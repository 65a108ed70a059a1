"""Bits per byte of text under a model, each document on its own from row 0.

    python3 evaluate.py (--model DIR | --checkpoint FILE.pt --tokenizer tokenizer.json) TEXT[.xz][@FIRST:LAST]...
"""

import argparse
import json
import math
import os

import torch
import torch.nn.functional as F

import bpe
import corpus
from model import Config, build


@torch.no_grad()
def nats(model, ids):
    """Minus the log-probability [T] of each token of ids [T] given those before it.

    A flat model sees the end-of-text token first, so that it too predicts the first token.
    """
    row, targets = ids, ids
    if model.cfg.flat:
        eos = model.cfg.bos_token_id if model.cfg.bos_token_id is not None else model.cfg.eos_token_id
        row = torch.cat((ids.new_tensor([eos]), ids[:-1]))
    logits = model(row[None])[0].float()
    return F.cross_entropy(logits, targets, reduction="none")


def total(model, documents):
    """(nats, tokens) summed over documents, each a 1-D tensor of ids."""
    was_training = model.training
    model.eval()
    summed, tokens = 0.0, 0
    for ids in documents:
        summed += nats(model, ids).double().sum().item()
        tokens += len(ids)
    model.train(was_training)
    return summed, tokens


def load_checkpoint(path):
    state = torch.load(path, map_location="cpu")
    model = build(Config.from_dict(state["config"]))
    model.load_state_dict(state["model"])
    return model


def load_directory(path):
    import tensorfile

    model = build(Config.from_file(os.path.join(path, "config.json")))
    model.load_state_dict(tensorfile.load(path))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model directory")
    parser.add_argument("--checkpoint", help="a checkpoint of train.py")
    parser.add_argument("--tokenizer", help="default: the model directory's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    if bool(options.model) == bool(options.checkpoint):
        parser.error("give either --model or --checkpoint")
    model = load_directory(options.model) if options.model else load_checkpoint(options.checkpoint)
    tokenizer = bpe.load(options.tokenizer or os.path.join(options.model, "tokenizer.json"))
    model.to(options.device)
    for spec in options.files:
        texts = [t for t in corpus.documents(spec) if t]
        ids = (torch.tensor(tokenizer.encode(t), device=options.device) for t in texts)
        summed, tokens = total(model, ids)
        size = sum(len(t.encode("utf-8")) for t in texts)
        print(json.dumps({
            "file": os.path.basename(spec), "documents": len(texts), "tokens": tokens, "bytes": size, "nats": round(summed, 2),
            "bits_per_byte": round(summed / math.log(2) / size, 4), "perplexity": round(math.exp(summed / tokens), 3),
        }), flush=True)


if __name__ == "__main__":
    main()
