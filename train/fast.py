"""The arithmetic of model.py as a GPU likes it: fused attention, and rotations from tables made once, fit for torch.compile.

    fast.install(model, tokens)    # after model.to("cuda")

Only bfloat16 on a GPU takes these paths; everything else, evaluation in float32 above all, stays with model.py.
"""

import torch
import torch.nn.functional as F

import model as reference

_tables = {}
_plain_rotate, _plain_attention, _plain_memory = reference.rotate, reference.attention, reference.memory_attention
_folds = {}  # (rows, rows of M) of a memory attention: how many rows that follow one another see the same; None: see `seen`


def rotate(x, theta):
    """RoPE, half-split, on x [B, H, n, head_dim]."""
    table = _tables.get((x.shape[2], theta)) if x.is_cuda and x.dtype == torch.bfloat16 else None
    if table is None:
        return _plain_rotate(x, theta)
    cos, sin = table
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def memory_attention(q, k, v, seen, window):
    """q [B, H, n, d] on k and v [B, H, m, d]: row i sees rows 0 ... seen[i], of them the last `window` (0: all).

    Where `fold` rows of each unit see the same they become heads of one row: then it is plain causal attention.
    """
    b, h, n, d = q.shape
    if not (q.is_cuda and q.dtype == torch.bfloat16):
        return _plain_memory(q, k, v, seen, window)
    fold = _folds.get((n, k.shape[2]))
    if fold is None:
        pad = -k.shape[2] % 8  # of which no row sees any
        k, v = (F.pad(x, (0, 0, 0, pad)) for x in (k, v))
        ahead = seen[:, None] - torch.arange(k.shape[2], device=q.device)[None, :]
        visible = (ahead >= 0) & (ahead < (window or k.shape[2]))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    units = n // fold
    q = q.reshape(b, h, units, fold, d).transpose(2, 3).reshape(b, h * fold, units, d)
    k, v = (x[:, :, :units].repeat_interleave(fold, dim=1) for x in (k, v))
    out = attention(q, k, v, window)
    return out.view(b, h, fold, units, d).transpose(2, 3).reshape(b, h, n, d)


def attention(q, k, v, window):
    """Causal attention of q, k, v [B, H, n, d]; a row sees the last `window` rows (0: all)."""
    if not (q.is_cuda and q.dtype == torch.bfloat16):
        return _plain_attention(q, k, v, window)
    if window == 0 or window >= q.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    n = q.shape[2]
    out = torch.ops.aten._flash_attention_forward(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None, None, n, n, 0.0, True, False,
        window_size_left=window - 1, window_size_right=0)[0]
    return out.transpose(1, 2)


def check(device):
    """Raises where the fused attention is not the reference's: an operator's argument may have changed its meaning."""
    g = torch.Generator(device).manual_seed(1)
    for n, window in ((256, 0), (256, 64), (300, 7)):
        q, k, v = (torch.randn(2, 3, n, 64, device=device, dtype=torch.bfloat16, generator=g).requires_grad_() for _ in range(3))
        weight = torch.randn(2, 3, n, 64, device=device, generator=g)
        results = []
        for attend, cast in ((attention, lambda x: x), (_plain_attention, lambda x: x.float())):
            out = attend(cast(q), cast(k), cast(v), window)
            results.append((out.float(), *torch.autograd.grad((out.float() * weight).sum(), (q, k, v))))
        for got, want in zip(*results):
            if (got.float() - want.float()).abs().max() > 0.05 * want.float().abs().max():
                raise RuntimeError(f"fused attention of {n} rows, window {window}, differs from model.py's")


def install(model, tokens, device="cuda"):
    """Gives every model of this process fused attention, and `model` tables for texts of `tokens` tokens."""
    check(device)
    cfg, units = model.cfg, [tokens]
    sizes = [(tokens, s) for s in (cfg.stack, cfg.token_encoder) if s]
    for level in cfg.levels:
        units.append(units[-1] // level.chunk_size)
        local = level.rows - (level.prefix_length > 0)  # rows of a unit that is a sequence of its own
        sizes += [(units[-1], level.encoder), (units[-1] * level.rows if level.stream else local, level.decoder)]
    for n, stack in sizes:
        if stack.rope_theta:
            _tables[n, stack.rope_theta] = reference.rope_table(n, stack.head_dim, stack.rope_theta, torch.float32, device)
    for l, level in enumerate(cfg.levels):
        for m in level.decoder.memories:
            local = not level.stream and level.prefix_length > 0
            key = units[l + 1] * (level.rows - local), 1 + units[m.level - m.unpack]
            fold = units[l] // units[m.level] if level.prefix_length == 0 and not m.unpack else None
            # Memories of one size that differ in what is seen, as one of tokens and an unpacked one, are told apart by `seen` alone.
            _folds[key] = fold if _folds.get(key, fold) == fold else None
    reference.rotate, reference.attention, reference.memory_attention = rotate, attention, memory_attention
