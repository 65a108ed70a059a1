"""Trains a model on packed text.

    python3 train.py --config config.json --tokenizer tokenizer.json --data stories.bin:3 --data dialogues.bin:1 \
        --heldout heldout.bin --out RUN --until 2026-01-31T18:00:00Z

The budget is --until (wall clock), --seconds or --steps; the learning rate follows the share of it that is
spent, so that it ends at zero whatever the machine's speed. `torchrun --nproc_per_node N train.py ...` trains on N
processes; on a CPU, N processes of one thread each are faster than one of N threads.

RUN/checkpoint.pt  weights, optimisers and progress; a run that finds it goes on from there
RUN/log.jsonl      a line every few steps
"""

import argparse
import calendar
import json
import math
import os
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import bpe
import data
import evaluate
import optim
from model import Config, build, count_parameters


class Stream:
    """Rows of T tokens from the documents of one packed file, in a new random order each epoch.

    A document starts at a multiple of `align`, where a unit of every level starts, as it does in generation; the end-of-text
    tokens that fill the gap are masked. One that is cut by the end of a row goes on in the next row.
    """

    def __init__(self, packed, tokens, align, seed, rank, world):
        self.packed, self.tokens, self.align, self.seed = packed, tokens, align, seed
        self.rank, self.world = rank, world
        self.epoch, self.queue, self.rest = -1, [], np.zeros(0, np.int64)

    def next_document(self):
        while not self.queue:
            self.epoch += 1
            order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.packed.offsets) - 1)
            self.queue = list(order[self.rank :: self.world])
        i = self.queue.pop()
        ids = np.asarray(self.packed.document(i), np.int64)
        # A document that comes again mostly starts some tokens later, so that its chunks are others than before.
        random = np.random.default_rng((self.seed, self.epoch, i))
        skip = random.integers(self.align) if self.epoch > 0 and random.random() < 0.75 else 0
        return ids[min(skip, len(ids) - 1) :]

    def row(self):
        """ids [T] and mask [T], true where a token counts."""
        ids = np.full(self.tokens, self.packed.manifest["eos_token_id"], np.int64)
        mask = np.zeros(self.tokens, bool)
        at = 0
        while at < self.tokens:
            if not len(self.rest):
                self.rest = self.next_document()
            n = min(self.tokens - at, len(self.rest))
            ids[at : at + n], mask[at : at + n] = self.rest[:n], True
            self.rest = self.rest[n:]
            at += n + -n % self.align
        return ids, mask

    def state(self):
        return {"epoch": self.epoch, "queue": [int(i) for i in self.queue], "rest": torch.from_numpy(self.rest)}

    def resume(self, state):
        self.epoch, self.queue, self.rest = state["epoch"], list(state["queue"]), state["rest"].cpu().numpy()


class Mixture:
    """Draws each row from one of several streams, by weight. A spec is FILE.bin[:WEIGHT[:LAST]]: a weight goes to LAST as the
    learning rate goes to zero. Those of `written` are text that a model wrote."""

    def __init__(self, specs, tokenizer, tokens, align, seed, rank, world, written=()):
        self.streams, weights = [], []
        for i, spec in enumerate([*specs, *written]):
            path, *weight = spec.split(":")
            packed = data.open_packed(path, tokenizer)
            self.streams.append(Stream(packed, tokens, align, seed + i, rank, world))
            first = float(weight[0]) if weight else 1.0
            weights.append((first, float(weight[1]) if len(weight) > 1 else first))
        self.found = len(specs)  # streams before those that are written
        self.weights = np.array(weights).T
        self.weights /= self.weights.sum(1, keepdims=True)
        self.random = np.random.default_rng((seed, rank))

    def row(self, decayed):
        """ids [T], mask [T], and whether a model wrote them. decayed: the share of the learning rate that is gone."""
        first, last = self.weights
        i = self.random.choice(len(self.streams), p=first + decayed * (last - first))
        return *self.streams[i].row(), np.bool_(i >= self.found)

    def batch(self, rows, device, decayed=0.0):
        return [torch.from_numpy(np.stack(x)).to(device) for x in zip(*(self.row(decayed) for _ in range(rows)))]

    def state(self):
        return {"random": json.dumps(self.random.bit_generator.state), "streams": [stream.state() for stream in self.streams]}

    def resume(self, state):
        self.random.bit_generator.state = json.loads(state["random"])
        for stream, saved in zip(self.streams, state["streams"]):
            stream.resume(saved)


class Budget:
    """The share of the run that is spent, from 0 to 1, by wall clock, working seconds or steps."""

    def __init__(self, options):
        self.until = calendar.timegm(time.strptime(options.until, "%Y-%m-%dT%H:%M:%SZ")) if options.until else None
        self.seconds, self.steps = options.seconds, options.steps
        self.began = self.resumed = time.time()
        self.worked = 0.0

    def spent(self, step):
        if self.until:
            now = time.time()
            share = (now - self.began) / (self.until - self.began) if now < self.until else 1.0
        elif self.seconds:
            share = self.elapsed() / self.seconds
        else:
            share = step / self.steps
        return min(share, 1.0)

    def elapsed(self):
        return self.worked + time.time() - self.resumed

    def state(self):
        return {"began": self.began, "worked": self.elapsed()}

    def resume(self, state):
        self.began, self.worked = state["began"], state["worked"]


class Windows:
    """The windows of the level-1 decoder, which a curriculum narrows for a while."""

    def __init__(self, model, near):
        self.layers = model.levels[0].decoder.layers if near else []
        self.near, self.own = near, [layer.self_attn.window for layer in self.layers]

    def narrow(self, wanted):
        for layer, own in zip(self.layers, self.own):
            window = self.near if wanted else own
            if layer.self_attn.window != window:  # compiled code is made anew
                layer.self_attn.window = window


class Loss(nn.Module):
    """The model's loss as a forward pass, which is what DDP wraps."""

    def __init__(self, model, alpha, teachers, taught):
        super().__init__()
        self.model, self.alpha, self.taught = model, alpha, taught
        self.teachers = tuple(teachers)  # which is no part of the module

    def forward(self, ids, mask, given, written):
        taught = torch.where(written, 1.0, self.taught)[:, None]
        return self.model.loss(ids, self.alpha, mask, given, self.teachers, taught)


def teacher(path, cfg):
    """A trained model, to be learned from."""
    out = evaluate.load(path)
    own = out.cfg
    if own.vocab_size != cfg.vocab_size or own.flat != cfg.flat:
        kind = "flat" if own.flat else "no flat"
        sys.exit(f"{path} is a {kind} model of {own.vocab_size} tokens: a teacher must have {cfg.vocab_size}, "
                 "and be flat only where the model is")
    return out.eval().requires_grad_(False)


def noisy(ids, share):
    """ids [B, T], of which about `share` are other tokens of the batch: what is learned by heart is of less use."""
    if share == 0:
        return ids
    others = ids.flatten()[torch.randint(ids.numel(), ids.shape, device=ids.device)]
    return torch.where(torch.rand(ids.shape, device=ids.device) < share, others, ids)


def decay(share, options):
    """What is left of the learning rate's peak: a plateau, then a decay to zero. (A linear warm-up comes before.)"""
    left = (1 - share) / (1 - options.decay_from) if share > options.decay_from else 1.0
    return 0.5 - 0.5 * math.cos(math.pi * left) if options.decay == "cosine" else left


def save(path, state):
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def heldout_bits(model, documents, token_bytes, rank, world):
    """Bits per byte of the held-out documents, which the ranks share out."""
    mine = documents[rank::world]
    summed, _ = evaluate.total(model, mine)
    sums = torch.tensor([summed, sum(token_bytes[i] for d in mine for i in d.tolist())], dtype=torch.float64)
    if world > 1:
        sums = sums.to(mine[0].device if mine else "cpu")
        dist.all_reduce(sums)
    return (sums[0] / sums[1] / math.log(2)).item()


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--preset", help="a name of presets.py")
    model.add_argument("--config", help="a config.json")
    parser.add_argument("--init", metavar="DIR|CHECKPOINT",
                        help="start from the weights of a model directory or a checkpoint")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", action="append", required=True, metavar="FILE.bin[:WEIGHT[:LAST]]",
                        help="the weight goes to LAST as the learning rate goes to zero")
    parser.add_argument("--written", action="append", default=[], metavar="FILE.bin[:WEIGHT[:LAST]]",
                        help="text that a model wrote: of it teachers are believed alone, as if --taught were 1")
    parser.add_argument("--heldout", metavar="FILE.bin")
    parser.add_argument("--heldout-documents", type=int, default=8)
    parser.add_argument("--out", required=True)
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--until", metavar="UTC", help="for example 2026-01-31T18:00:00Z")
    budget.add_argument("--seconds", type=float)
    budget.add_argument("--steps", type=int)
    parser.add_argument("--rows", type=int, default=2, help="rows a step and process")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a row")
    parser.add_argument("--accumulate", type=int, default=1, help="batches a step")
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW")
    parser.add_argument("--muon-lr", type=float, default=0.02, help="0: AdamW for all")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.0, help="of what each layer adds to its stream")
    parser.add_argument("--noise", type=float, default=0.0,
                        help="share of the tokens read, not of those predicted, that others replace; "
                        "goes to zero with the learning rate")
    parser.add_argument("--warmup", type=int, default=50, help="steps")
    parser.add_argument("--decay", choices=("linear", "cosine"), default="linear")
    parser.add_argument("--decay-from", type=float, default=0.3, help="share of the budget")
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--alpha", type=float, default=0.0)
    parser.add_argument("--teacher", action="append", default=[], metavar="DIR|CHECKPOINT",
                        help="a trained model to learn from, or several: from the mean of what they predict")
    parser.add_argument("--taught", type=float, default=0.5,
                        help="share of the loss that is what teachers predict, not the text")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--threads", type=int, default=1, help="a process, on a CPU")
    parser.add_argument("--compile", action="store_true", help="fused attention and compiled code, on a GPU: more than twice as fast")
    parser.add_argument("--curriculum", metavar="W,SHARE", help="a window of W rows in the level-1 decoder for the first SHARE of the budget: "
                        "what is further back must come from above")
    parser.add_argument("--pause", type=float, metavar="SECONDS", help="stop so long after the start, to be resumed")
    parser.add_argument("--log-every", type=int, default=20, help="steps")
    parser.add_argument("--evaluate-every", type=float, default=300, help="seconds")
    parser.add_argument("--save-every", type=float, default=300, help="seconds")
    options = parser.parse_args(argv)
    if options.written and not options.teacher:
        parser.error("--written is text to be taught on: give a --teacher, or call it --data")
    return options


def main(argv=None):
    options = arguments(argv)
    began = time.time()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.backends.cuda.matmul.allow_tf32 = True
    else:
        torch.set_num_threads(options.threads)
    if world > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    options.dtype = options.dtype or ("bfloat16" if device == "cuda" else "float32")

    if options.preset:
        import presets

        cfg = presets.config(options.preset)
    else:
        cfg = Config.from_file(options.config)
    tokenizer = bpe.load(options.tokenizer)
    if tokenizer.vocab_size != cfg.vocab_size:
        sys.exit(f"{options.tokenizer} has {tokenizer.vocab_size} tokens, the model {cfg.vocab_size}: train a tokenizer of that size")
    model = build(cfg).init_weights(options.seed)
    if options.init:
        model.load_state_dict(evaluate.load(options.init).state_dict())
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = options.dropout
    model = model.to(device)
    drawn_from = [options.seed, *options.data, *options.written]
    mixture = Mixture(options.data, tokenizer, options.tokens, cfg.meta_context, options.seed, rank, world,
                      options.written)
    optimisers = optim.optimisers(model, options.lr, options.muon_lr, options.weight_decay, device)
    budget, step, tokens = Budget(options), 0, 0

    heldout, token_bytes = [], {i: len(b) for i, b in tokenizer.tokens.items()}
    if options.heldout:
        packed = data.open_packed(options.heldout, tokenizer)
        for i in range(min(options.heldout_documents, len(packed.offsets) - 1)):
            document = packed.document(i)[:-1]  # the end-of-text token is no text
            heldout.append(torch.from_numpy(np.asarray(document, np.int64)).to(device))

    os.makedirs(options.out, exist_ok=True)
    checkpoint = os.path.join(options.out, "checkpoint.pt")
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        step, tokens = state["step"], state["tokens"]
        budget.resume(state["budget"])
        if state["drawn_from"] == drawn_from:  # from other data it draws anew
            mixture.resume(state["mixtures"][rank])
    near, widen_at = (float(x) for x in options.curriculum.split(",")) if options.curriculum else (0, 0)
    windows = Windows(model, int(near))
    teachers = [teacher(path, cfg).to(device) for path in options.teacher]
    loss_of = Loss(model, options.alpha, teachers, options.taught)
    if options.compile:
        import fast

        for each in (model, *teachers):
            fast.install(each, options.tokens)
        loss_of = torch.compile(loss_of, dynamic=False)
        # Few gradients: one all-reduce behind the backward pass costs less than a graph cut in pieces.
        torch._dynamo.config.optimize_ddp = False
    if world > 1:
        loss_of = nn.parallel.DistributedDataParallel(loss_of, gradient_as_bucket_view=True)

    def log(**line):
        if rank == 0:
            text = json.dumps(line)
            print(text, flush=True)
            with open(os.path.join(options.out, "log.jsonl"), "a", encoding="utf-8") as f:
                f.write(text + "\n")

    log(parameters=count_parameters(model), config=cfg.to_dict(), options=vars(options), processes=world, torch=torch.__version__)
    since, since_tokens, losses = time.time(), tokens, []
    evaluated = saved = time.time()
    while True:
        # Every rank must take the same decisions, so rank 0's clock is everyone's.
        now = torch.tensor([time.time(), budget.spent(step)], dtype=torch.float64, device=device)
        if world > 1:
            dist.broadcast(now, 0)
        clock, share = now.tolist()
        done = share >= 1.0 or options.pause is not None and clock - began > options.pause

        if heldout and (done or clock - evaluated > options.evaluate_every):
            bits = heldout_bits(model, heldout, token_bytes, rank, world)
            log(step=step, tokens=tokens, share=round(share, 4), heldout_bits_per_byte=round(bits, 4))
            evaluated = clock
        if done or clock - saved > options.save_every:
            mixtures = [mixture.state()] * world
            if world > 1:
                dist.all_gather_object(mixtures, mixture.state())
            if rank == 0:
                save(checkpoint, {
                    "config": cfg.to_dict(), "model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers],
                    "step": step, "tokens": tokens, "mixtures": mixtures, "drawn_from": drawn_from, "budget": budget.state(),
                })
            saved = clock
        if done:
            break

        windows.narrow(share < widen_at)
        decayed = 1 - decay(share, options)
        factor = min(1.0, (step + 1) / options.warmup) * (1 - decayed)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor
        for _ in range(options.accumulate):
            ids, mask, written = mixture.batch(options.rows, device, decayed)
            with torch.autocast(device, torch.bfloat16, enabled=options.dtype == "bfloat16"):
                loss = loss_of(ids, mask, noisy(ids, options.noise * (1 - decayed)), written)
            (loss / options.accumulate).backward()
            tokens += ids.numel() * world
        norm = nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        losses.append(loss.detach())

        if step % options.log_every == 0:
            spent = time.time() - since
            log(step=step, tokens=tokens, share=round(share, 4), loss=round(torch.stack(losses).mean().item(), 4),
                rate=round(factor, 4), norm=round(float(norm), 3), tokens_per_second=round((tokens - since_tokens) / spent),
                seconds=round(budget.elapsed()))
            since, since_tokens, losses = time.time(), tokens, []
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
