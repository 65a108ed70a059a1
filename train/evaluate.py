"""Bits per byte of text under a model, each document on its own from row 0; and what else papers compute.

    python3 evaluate.py (--model DIR | --checkpoint FILE.pt --tokenizer tokenizer.json) TEXT[.xz][@FIRST:LAST]...
    python3 evaluate.py … --context 1024 --stride 512 --by position TEXT...
    python3 evaluate.py … --lambada FILE.jsonl[.xz]...

The options and their figures are those of `photon score`; `photon help score` defines them.
"""

import argparse
import json
import math
import os
import re

import torch
import torch.nn.functional as F

import bpe
import corpus
import tensorfile
from model import Config, build


@torch.no_grad()
def nats(model, ids):
    """Minus the log-probability [T] of each token of ids [T] given those before it."""
    return F.cross_entropy(predicted(model, ids), ids, reduction="none")


def predicted(model, ids):
    """logits [T, V] of each token of ids [T].

    A flat model sees the beginning- or end-of-text token first, so that it too predicts the first token.
    """
    if model.cfg.flat:
        ids = torch.cat((ids.new_tensor([opening(model.cfg)]), ids[:-1]))
    return model(ids[None])[0].float()


def opening(cfg):
    """The token that stands before the text of a flat model."""
    token = cfg.bos_token_id if cfg.bos_token_id is not None else cfg.eos_token_id
    token = token[0] if isinstance(token, list) else token
    if token is None:
        raise ValueError("config: a flat model is judged behind its bos_token_id or eos_token_id: give it one")
    return token


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


def windows(length, context=0, stride=0):
    """(begin, first token without a score yet, end) of each window; context 0: one window, stride 0: side by side."""
    begin, done = 0, 0
    while done < length:
        end = min(begin + (context or length), length)
        yield begin, done, end
        begin, done = begin + (stride or context or length), end


def document_nats(model, ids, context=0, stride=0):
    """`nats` [T] of a document, in windows that are each a text of its own."""
    cut = windows(len(ids), context, stride)
    return torch.cat([nats(model, ids[begin:end])[done - begin :] for begin, done, end in cut])


# White space as Unicode's property White_Space has it: neither str.split nor \s are that.
WORD = re.compile(r"[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")


def score(model, tokenizer, texts, context=0, stride=0):
    """The figures of `photon score` over texts."""
    device = next(model.parameters()).device
    out = {"documents": 0, "tokens": 0, "words": 0, "bytes": 0, "nats": 0.0}
    spans = []  # (tokens, nats) at positions 0-64, 64-256, 256-1024, ...
    for text in texts:
        ids = torch.tensor(tokenizer.encode(text), device=device)
        each = document_nats(model, ids, context, stride).double().cpu()
        first, last, i = 0, 64, 0
        while first < len(each):
            spans += [[0, 0.0]] * (i == len(spans))
            part = each[first:last]
            spans[i] = [spans[i][0] + len(part), spans[i][1] + part.sum().item()]
            first, last, i = last, 4 * last, i + 1
        out["documents"] += 1
        out["tokens"] += len(ids)
        out["words"] += len(WORD.findall(text))
        out["bytes"] += len(text.encode("utf-8"))
        out["nats"] += each.sum().item()
    out["bits_per_byte"] = out["nats"] / math.log(2) / out["bytes"]
    out["perplexity"] = math.exp(out["nats"] / out["tokens"])
    if out["words"]:
        out["word_perplexity"] = math.exp(min(out["nats"] / out["words"], 709))
    out["by_position"] = [
        {"from": 64 * 4 ** (i - 1) if i else 0, "to": 64 * 4**i, "tokens": tokens, "nats_per_token": summed / tokens}
        for i, (tokens, summed) in enumerate(spans)
    ]
    return out


def split_target(tokenizer, text):
    """(ids given, ids of the target): the text is cut before the space ahead of its last word."""
    text = text.rstrip(" \t\r\n")
    whole, rest = tokenizer.encode(text), tokenizer.encode(text[: text.rindex(" ")])
    n = 0
    while n < min(len(rest), len(whole) - 1) and rest[n] == whole[n]:
        n += 1
    return whole[:n], whole[n:]


@torch.no_grad()
def lambada(model, tokenizer, texts):
    """The figures of `photon score -lambada`: accuracy and perplexity of last words."""
    device = next(model.parameters()).device
    out = {"texts": 0, "correct": 0, "tokens": 0, "nats": 0.0}
    for text in texts:
        given, target = split_target(tokenizer, text)
        logits = predicted(model, torch.tensor(given + target, device=device))[len(given) :].double()
        labels = torch.tensor(target, device=device)
        out["texts"] += 1
        out["correct"] += int((logits.argmax(-1) == labels).all())
        out["tokens"] += len(target)
        out["nats"] += F.cross_entropy(logits, labels, reduction="sum").item()
    out["accuracy"] = out["correct"] / out["texts"]
    out["perplexity"] = math.exp(min(out["nats"] / out["texts"], 709))
    return out


def json_texts(path):
    with corpus.open_text(path) as file:
        return [json.loads(line)["text"] for line in file if line.strip()]


def load(path):
    """The model of a directory, or of a checkpoint of train.py; ValueError where weights and configuration differ."""
    if os.path.isdir(path):
        config, weights = Config.from_file(os.path.join(path, "config.json")), tensorfile.load(path)
    else:
        state = torch.load(path, map_location="cpu")
        config, weights = Config.from_dict(state["config"]), state["model"]
    model = build(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}\nWas it written by another version of model.py?") from None
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model directory")
    parser.add_argument("--checkpoint", help="a checkpoint of train.py")
    parser.add_argument("--tokenizer", help="default: the model directory's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--context", type=int, default=0, help="score windows of this many tokens; 0: whole documents")
    parser.add_argument("--stride", type=int, default=0, help="begin windows this many tokens apart; 0: side by side")
    parser.add_argument("--by", choices=["position"], help="also say where the nats fall")
    parser.add_argument("--lambada", action="store_true", help="the files are LAMBADA: judge their last words")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    if bool(options.model) == bool(options.checkpoint):
        parser.error("give either --model or --checkpoint")
    if not 0 <= options.stride <= options.context:
        parser.error("--stride must be 0 or more, and at most --context")
    if options.lambada and (options.context or options.by):
        parser.error("--lambada goes without --context, --stride and --by")
    model = load(options.model or options.checkpoint)
    tokenizer = bpe.load(options.tokenizer or os.path.join(options.model, "tokenizer.json"))
    model.to(options.device).eval()
    for spec in options.files:
        if options.lambada:
            figures = lambada(model, tokenizer, json_texts(spec))
        else:
            figures = score(model, tokenizer, (t for t in corpus.documents(spec) if t), options.context, options.stride)
            if not options.by:
                del figures["by_position"]
        print(json.dumps({"file": os.path.basename(spec), **rounded(figures)}), flush=True)


def rounded(x):
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [rounded(value) for value in x]
    return round(x, 4) if isinstance(x, float) else x


if __name__ == "__main__":
    main()
