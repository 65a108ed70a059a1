"""What a trained model makes of its text: bits per byte, by position; what it has from far back; what each part is worth.

    python3 probe.py --checkpoint RUN/checkpoint.pt --tokenizer tokenizer.json --books books.bin --documents NAME=FILE.bin... --long long.bin

prints one JSON object. books are cut into pieces of 4,096 tokens, the first eight of each; documents are scored whole, each on its own.

gain N: nats a token lost in the second half of a piece when a token is given only the N … 2N tokens before it, not all.
worth: nats a token lost when a layer adds nothing, when a memory is not read, or when the condition of a level is replaced by its
mean over the texts. Both are differences of means over the same tokens.
"""

import argparse
import contextlib
import json
import math
import time

import numpy as np
import torch
import torch.nn.functional as F

import bpe
import cost
import data
import evaluate

PIECE = 4096
EDGES = (0, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768)


class Prober:
    def __init__(self, model, tokenizer, device):
        self.model, self.device = model.to(device).eval(), device
        self.bytes_of = torch.tensor([len(tokenizer.tokens.get(i, b"")) for i in range(tokenizer.vocab_size)], device=device, dtype=torch.float64)

    @torch.no_grad()
    def nats(self, ids):
        """Minus the log-probability [B, T] of each token of ids [B, T] given those before it in its row."""
        row, cfg = ids, self.model.cfg
        if cfg.flat:
            first = cfg.bos_token_id if cfg.bos_token_id is not None else cfg.eos_token_id
            row = torch.cat((torch.full_like(ids[:, :1], first), ids[:, :-1]), 1)
        out = []
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            # A few rows at a time, so that the logits fit.
            for part, targets in zip(row.split(max(1, 32768 // ids.shape[1])), ids.split(max(1, 32768 // ids.shape[1]))):
                x = self.model.hidden(part)["Xhat0"]
                for hidden, labels in zip(x.reshape(-1, x.shape[-1]).split(32768), targets.reshape(-1).split(32768)):
                    out.append(F.cross_entropy(self.model.project(hidden).float(), labels, reduction="none"))
        return torch.cat(out).view(ids.shape)

    def bits(self, nats, ids):
        return (nats.double().sum() / self.bytes_of[ids].sum() / math.log(2)).item()

    def documents(self, packed):
        """Bits per byte of whole documents; those of like length run together, padded on the right."""
        texts = sorted((np.asarray(packed.document(i)[:-1], np.int64) for i in range(len(packed.offsets) - 1)), key=len)
        nats = size = 0.0
        while texts:
            some, texts = texts[:16], texts[16:]
            ids = np.zeros((len(some), -(-len(some[-1]) // 256) * 256), np.int64)
            real = np.zeros(ids.shape, bool)
            for i, text in enumerate(some):
                ids[i, : len(text)], real[i, : len(text)] = text, True
            ids, real = torch.from_numpy(ids).to(self.device), torch.from_numpy(real).to(self.device)
            nats += self.nats(ids)[real].double().sum().item()
            size += self.bytes_of[ids][real].sum().item()
        return nats / size / math.log(2)

    def gains(self, pieces, full):
        """{N: nats lost} in the second half of pieces [n, T], whose tokens cost full [n, T]."""
        half, out = pieces.shape[1] // 2, {}
        for n in (64, 256, 1024, 4096):
            if 2 * n <= half + n and n < half:
                cuts = pieces[:, half - n :].unfold(1, 2 * n, n).reshape(-1, 2 * n)
                out[n] = (self.nats(cuts)[:, n:].mean() - full[:, half:].mean()).item()
        return out

    def worth(self, pieces):
        """{part: nats lost} where it is taken away."""
        before = self.nats(pieces).mean().item()
        lost = lambda change: self._without(change, pieces) - before
        out, model = {}, self.model
        stacks = {"": model.model} if model.cfg.flat else {}
        if getattr(model.cfg, "token_encoder", None):
            stacks["token encoder "] = model.token_encoder
        for l, level in enumerate([] if model.cfg.flat else model.levels, 1):
            stacks.update({f"encoder {l} ": level.encoder, f"decoder {l} ": level.decoder})
            out[f"condition {l}"] = lost([self._mean_input(level.converter, pieces[:8])])
            for e, memory in enumerate(getattr(level.decoder, "memories", [])):
                if memory.unpack:
                    out[f"decoder {l} memory {e} unpacked"] = lost([self._mean_input(memory.unpack, pieces[:8])])
                attends = [layer.memory_attn[str(e)] for layer in level.decoder.layers if hasattr(layer, "memory_attn") and str(e) in layer.memory_attn]
                out[f"decoder {l} memory {e}"] = lost([replaced(a, lambda x, *_: torch.zeros_like(x)) for a in attends])
                for a, n in zip(attends, model.cfg.levels[l - 1].decoder.memories[e].layers):
                    out[f"decoder {l} memory {e} in layer {n}"] = lost([replaced(a, lambda x, *_: torch.zeros_like(x))])
        for name, stack in stacks.items():
            for n, layer in enumerate(stack.layers):
                out[f"{name}layer {n}"] = lost([replaced(layer, lambda x: x)])
        return out

    def _without(self, changes, pieces):
        with contextlib.ExitStack() as all_of_them:
            for change in changes:
                all_of_them.enter_context(change)
            return self.nats(pieces).mean().item()

    def _mean_input(self, module, pieces):
        seen = []
        hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().mean((0, 1))))
        self.nats(pieces)
        hook.remove()
        mean, plain = torch.stack(seen).mean(0), module.forward
        return replaced(module, lambda x: plain(mean.to(x.dtype).expand_as(x)))


@contextlib.contextmanager
def replaced(module, forward):
    own = module.forward
    module.forward = forward
    try:
        yield
    finally:
        module.forward = own


def pieces_of(packed, size, each):
    """The first `each` pieces of `size` tokens of every document [n, size]."""
    out = []
    for i in range(len(packed.offsets) - 1):
        ids = np.asarray(packed.document(i)[:-1], np.int64)
        out += [ids[k * size : (k + 1) * size] for k in range(min(len(ids) // size, each))]
    return torch.from_numpy(np.stack(out))


def by_position(nats):
    edges = [e for e in EDGES if e <= nats.shape[1]]
    return {f"{a}-{b}": round(nats[:, a:b].mean().item(), 4) for a, b in zip(edges, edges[1:])}


def rounded(numbers, digits=4):
    return {k: round(v, digits) for k, v in numbers.items()}


def probe(model, tokenizer, device, books, documents, long=None, worth=True):
    p, out = Prober(model, tokenizer, device), {}
    pieces = pieces_of(data.open_packed(books, tokenizer), PIECE, 8).to(device)
    full = p.nats(pieces)
    out["books bits/byte"] = round(p.bits(full, pieces), 4)
    out["books by position"] = by_position(full)
    out["gain"] = rounded(p.gains(pieces, full))
    for name, path in documents.items():
        out[f"{name} bits/byte"] = round(p.documents(data.open_packed(path, tokenizer)), 4)
    if long:
        texts = pieces_of(data.open_packed(long, tokenizer), 16384, 2).to(device)
        full = p.nats(texts)
        out["long bits/byte"] = round(p.bits(full, texts), 4)
        out["long by position"] = by_position(full)
        out["long gain"] = rounded(p.gains(texts, full))
    if worth:
        out["worth"] = rounded(p.worth(pieces[:24]))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model directory")
    parser.add_argument("--checkpoint", help="a checkpoint of train.py")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--books", required=True, metavar="FILE.bin")
    parser.add_argument("--documents", nargs="*", default=[], metavar="NAME=FILE.bin")
    parser.add_argument("--long", metavar="FILE.bin")
    parser.add_argument("--no-worth", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    began = time.time()
    model = evaluate.load_directory(options.model) if options.model else evaluate.load_checkpoint(options.checkpoint)
    if options.device == "cuda":
        import fast

        torch.backends.cuda.matmul.allow_tf32 = True
        model.to("cuda")
        for size in (128, 512, 2048, 8192, 16384, PIECE):
            fast.install(model, size)
    tokenizer = bpe.load(options.tokenizer)
    documents = dict(spec.split("=", 1) for spec in options.documents)
    out = probe(model, tokenizer, options.device, options.books, documents, options.long, not options.no_worth)
    print(json.dumps(dict(cost.count(model.cfg), **out, seconds=round(time.time() - began))), flush=True)


if __name__ == "__main__":
    main()
