"""Chats on machines, event by event: bench/scale.py asks it what they see.

A machine is two cores, one copy of the model, a Batcher. It gives every text that decodes a token a round; a slice of the prompts that
wait stands in front of a round, as in batch.go, and they share it.
"""

import heapq
import math
import random
from collections import OrderedDict, deque

SLICE, LEAST, TEXTS = 0.025, 8, 128  # of batch.go: seconds of a slice, tokens of it at least; texts at a time


class Machine:
    """Prompts and texts that share it. A clock of each kind runs by what one of them gets: seconds of reading, and tokens."""

    def __init__(self):
        self.time = self.read = self.told = 0.0
        self.prompts, self.texts, self.resting, self.waiting = [], [], OrderedDict(), deque()
        self.busy = self.turn = 0


class Chat:
    home, sent, opened, began, tokens = None, 0.0, False, 0.0, 0.0


def simulate(form, given, machines, seconds=400, warm=100, seed=1, moves=True):
    """What chats see on so many machines: a dict. Chats arrive by a Poisson process; at the beginning all that shall be open are, thinking."""
    rng, order, events = random.Random(seed), iter(range(1 << 62)), []
    held = max(1, form.held(given))
    rounds = [0] + [form.round(n, given.context) for n in range(1, TEXTS + 1)]
    cut = max(SLICE, LEAST * form.prefill.at(given.context))
    read, ask = form.prefill.sum(given.context), given.asked * form.prefill.at(given.context)
    coding, wire = form.moved(given)
    recompute = read < coding + wire  # a state that is not here is made again, or fetched; both codings count where it is read
    fetch, delay = (read, 0) if recompute else (coding, wire)
    alone = ask + given.answer * rounds[1]
    park = [Machine() for _ in range(machines)]
    first, paces, opening = [], [], []
    out = {"turns": 0, "moved": 0, "fetched": 0, "open": 0.0, "answering": 0.0, "recompute": recompute}
    count, since = 0, warm

    def at(time, what, *with_):
        heapq.heappush(events, (time, next(order), what, with_))

    def crowd(change, now):
        nonlocal count, since
        out["open"] += count * (max(now, warm) - since)
        count, since = count + change, max(now, warm)

    def advance(m, now):
        p, n = len(m.prompts), len(m.texts)
        out["answering"] += n * max(0, now - max(m.time, warm))
        took = (now - m.time) / ((cut if p else 0) + rounds[n]) if p or n else 0
        m.time, m.read, m.told = now, m.read + (took * cut / p if p else 0), m.told + took

    def left(m):
        """Seconds until the first of its prompts is read, and until the first of its texts is written."""
        p, n = len(m.prompts), len(m.texts)
        cycle = (cut if p else 0) + rounds[n]
        return (m.prompts[0][0] - m.read) * p / cut * cycle if p else math.inf, (m.texts[0][0] - m.told) * cycle if n else math.inf

    def plan(m):
        m.turn += 1
        if m.prompts or m.texts:
            at(m.time + max(0, min(left(m))), done, m, m.turn)

    def guess(m, work):
        """Seconds to the first token, and to the last, of a turn with so much to read, as things stand there."""
        n = len(m.texts)
        token = (work * (1 + len(m.prompts)) * (1 + rounds[n] / cut)) + alone * len(m.waiting)
        return token, token + given.answer * rounds[min(n + 1, TEXTS)]

    def send(now, c):
        """A turn, or the first one of a chat: where it goes. It moves where its answer is sooner, unless the first token is late then."""
        m, other = c.home, park[rng.randrange(machines)]
        c.sent = now
        if m is None:
            m = min(other, park[rng.randrange(machines)], key=lambda x: (guess(x, read), len(x.resting)))
        elif moves and other is not m:
            here, there = guess(m, ask if c in m.resting else ask + fetch), guess(other, ask + fetch)
            if there[1] + delay < here[1] and there[0] + delay < max(here[0], given.first):
                m.resting.pop(c, None)
                m, out["moved"] = other, out["moved"] + (now > warm)
        c.home = m
        m.waiting.append(c)
        admit(m, now)

    def admit(m, now):
        while m.waiting and m.busy < min(TEXTS, held):
            c = m.waiting.popleft()
            m.busy += 1
            if c not in m.resting and c.opened:
                out["fetched"] += now > warm
                at(now + delay, join, m, c, fetch + ask)
            else:
                m.resting.pop(c, None)
                join(now, m, c, ask + (0 if c.opened else read))
            while m.busy + len(m.resting) > held:  # the longest unused is kept as a snapshot elsewhere, or not at all
                m.resting.popitem(last=False)

    def join(now, m, c, work):
        advance(m, now)
        heapq.heappush(m.prompts, (m.read + work, next(order), c))
        plan(m)

    def done(now, m, turn):
        if turn != m.turn:
            return
        advance(m, now)
        while left(m)[0] < 1e-9:
            c = heapq.heappop(m.prompts)[2]
            c.began, c.tokens = now, 1 + rng.expovariate(1 / given.answer)
            if now > warm:
                (first if c.opened else opening).append(now - c.sent)
            c.opened = True
            heapq.heappush(m.texts, (m.told + c.tokens, next(order), c))
        while left(m)[1] < 1e-9:
            c = heapq.heappop(m.texts)[2]
            m.busy -= 1
            if now > warm:
                out["turns"] += 1
                paces.append(c.tokens / max(1e-9, now - c.began))
            if rng.random() < 1 / given.turns:
                crowd(-1, now)
            else:
                m.resting[c] = None
                at(now + rng.expovariate(1 / given.think), send, c)
        admit(m, now)
        plan(m)

    def arrive(now):
        c = Chat()
        crowd(+1, now)
        send(now, c)
        at(now + rng.expovariate(given.chats / given.think / given.turns), arrive)

    for n in range(round(given.chats)):
        c = Chat()
        c.home, c.opened = park[n % machines], True
        if len(c.home.resting) < held:
            c.home.resting[c] = None
        at(rng.expovariate(1 / given.think), send, c)
    crowd(round(given.chats), 0)
    at(rng.expovariate(given.chats / given.think / given.turns), arrive)
    while events[0][0] < seconds:
        now, _, what, with_ = heapq.heappop(events)
        what(now, *with_)
    crowd(0, seconds)
    late = [seconds - c.sent for m in park for c in list(m.waiting) + [p[2] for p in m.prompts] if c.opened]  # not to be forgotten
    spread = lambda x, share: sorted(x)[min(len(x) - 1, int(share * len(x)))] if x else math.nan
    return dict(out, open=out["open"] / (seconds - warm), answering=out["answering"] / (seconds - warm), first=spread(first + [x for x in late if x > given.first], 0.99),
                pace=spread(paces, 0.01), opening=spread(opening, 0.5), firsts=first, rate=out["turns"] / (seconds - warm))
