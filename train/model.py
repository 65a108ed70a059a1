"""PHOTON in plain PyTorch: a hierarchy of causal LLaMA stacks, of any number of levels.

Level l groups chunk_size units of level l-1 into one. Going up, chunkers and encoders turn tokens
into states X1, X2, ... . Coming down, each decoder predicts the states of its unit's children
(Xhat) from a condition and the children before; Xhat0 times the head are the logits.

    model = build(Config.from_file("config.json"))
    logits = model(ids)     # ids [B, T] -> [B, T, V]; row i predicts token i (flat: token i+1)

Shapes: B texts, T tokens, n units or rows, D width, H heads.
"""

import functools
import json
from dataclasses import asdict, dataclass, field
from typing import List, Optional, Union

import torch
import torch.nn.functional as F
from torch import nn

IGNORED = -100  # the target of a token that does not count


# --- configuration ---------------------------------------------------------------------------


@dataclass
class StackConfig:
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    sliding_window: Union[int, List[int]] = 0  # a row sees the last w rows, itself included; 0: all; or one a layer
    rope_theta: float = 10000.0  # 0: no rotation

    @property
    def windows(self):
        """The window of each layer."""
        w = self.sliding_window
        return w if isinstance(w, list) else [w] * self.num_hidden_layers


@dataclass
class MemoryConfig:
    """Decoder rows attend to the states of every finished unit of one level."""

    level: int
    layers: List[int]  # of the decoder, counted from 0
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int = 0  # the last w of what can be seen; 0: all
    rope_theta: float = 0.0
    unpack: bool = False  # rows are the children of those units: each one's state plus what its unit's state says of it


@dataclass
class DecoderConfig(StackConfig):
    memories: List[MemoryConfig] = field(default_factory=list)


@dataclass
class LevelConfig:
    chunk_size: int
    prefix_length: int  # rows that the condition becomes; 0: it is added to the rows of the children
    chunker: str  # "concat" or "linear"
    encoder: StackConfig
    decoder: DecoderConfig

    def __post_init__(self):
        if not isinstance(self.decoder, DecoderConfig):  # one without memories
            self.decoder = DecoderConfig(**asdict(self.decoder))

    @property
    def rows(self):
        """Rows of a unit in the decoder, as they are numbered through the text."""
        return self.prefix_length + self.chunk_size

    @property
    def stream(self):
        return self.decoder.sliding_window != 0


FLAT_TYPES = ("llama", "mistral", "ministral")


def flat_windows(d):
    """The window or windows of a flat model, from Hugging Face's keys."""
    window, types, layers = d.get("sliding_window"), d.get("layer_types"), d["num_hidden_layers"]
    if d["model_type"] == "llama" and (window or set(types or ()) - {"full_attention"}):
        raise ValueError("config: model_type \"llama\" has no windows: \"mistral\" and \"ministral\" have")
    if d["model_type"] != "ministral" or types is None:
        return window or 0
    if len(types) != layers or set(types) - {"full_attention", "sliding_attention"}:
        raise ValueError(f"config: layer_types must name {layers} layers full_attention or sliding_attention")
    return [window if kind == "sliding_attention" else 0 for kind in types]


def read(kind, d):
    return kind(**{k: v for k, v in d.items() if k in kind.__dataclass_fields__})


@dataclass
class Config:
    vocab_size: int
    embedding_size: int = 0  # width of the encoder's embedding; unused when flat
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    bos_token_id: Optional[int] = None
    eos_token_id: Optional[Union[int, List[int]]] = None
    content: str = "embedding"  # of the level-1 decoder's rows: "embedding", or "states" of the token encoder
    token_encoder: Optional[StackConfig] = None
    levels: List[LevelConfig] = field(default_factory=list)
    stack: Optional[StackConfig] = None  # the one stack of a flat model

    @property
    def flat(self):
        return not self.levels

    @property
    def meta_context(self):
        """Tokens in one unit of the top level."""
        n = 1
        for level in self.levels:
            n *= level.chunk_size
        return n

    @classmethod
    def from_file(cls, path):
        with open(path, encoding="utf-8") as f:
            return cls.from_dict(json.load(f))

    @classmethod
    def from_dict(cls, d):
        kind = d.get("model_type")
        shared = ("vocab_size", "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id")
        common = {k: d[k] for k in shared if k in d}
        if kind in FLAT_TYPES:
            heads = d["num_attention_heads"]
            stack = StackConfig(
                hidden_size=d["hidden_size"],
                num_hidden_layers=d["num_hidden_layers"],
                num_attention_heads=heads,
                num_key_value_heads=d.get("num_key_value_heads") or heads,
                head_dim=d.get("head_dim") or d["hidden_size"] // heads,
                intermediate_size=d["intermediate_size"],
                sliding_window=flat_windows(d),
                rope_theta=d.get("rope_theta", 10000.0),
            )
            cfg = cls(stack=stack, **common)
        elif kind == "photon":
            version = d.get("format_version")
            if version not in (1, 2):
                raise ValueError(f"config: format_version {version!r} is not supported, want 1 or 2")
            if d.get("token_encoder"):
                common["token_encoder"] = read(StackConfig, d["token_encoder"])
            if not d["levels"]:
                raise ValueError("config: levels is empty")
            levels = []
            for level in d["levels"]:
                sizes = {k: level[k] for k in ("chunk_size", "prefix_length", "chunker")}
                decoder = read(DecoderConfig, level["decoder"])
                decoder.memories = [read(MemoryConfig, m) for m in decoder.memories]
                levels.append(LevelConfig(encoder=read(StackConfig, level["encoder"]), decoder=decoder, **sizes))
            cfg = cls(embedding_size=d["embedding_size"], content=d.get("content", "embedding"), levels=levels, **common)
            news = [key for key in ("token_encoder", "content") if key in d] + cfg.news()
            news += ["memories"] * any("memories" in level["decoder"] for level in d["levels"])
            if version == 1 and news:
                raise ValueError(f"config: format_version 1 does not know {news[0]}: it is 2")
        else:
            raise ValueError(f"config: model_type {kind!r} is not supported, want \"photon\" or one of {FLAT_TYPES}")
        cfg.check()
        return cfg

    def news(self):
        """What of this configuration format 1 does not have."""
        stacks = [s for level in self.levels for s in (level.encoder, level.decoder)]
        return (
            ["token_encoder"] * bool(self.token_encoder)
            + ["content"] * (self.content != "embedding")
            + ["prefix_length 0"] * any(level.prefix_length == 0 for level in self.levels)
            + ["memories"] * any(level.decoder.memories for level in self.levels)
            + ["sliding_window of each layer"] * any(isinstance(s.sliding_window, list) for s in stacks)
        )

    def to_dict(self):
        if self.flat:
            return self.flat_dict()
        d = {"model_type": "photon", "format_version": 2 if self.news() else 1, "vocab_size": self.vocab_size}
        d["embedding_size"] = self.embedding_size
        d.update(self.shared_dict())
        if self.token_encoder:
            d["token_encoder"] = asdict(self.token_encoder)
        if self.content != "embedding":
            d["content"] = self.content
        d["levels"] = [asdict(level) for level in self.levels]
        for level in d["levels"]:
            if not level["decoder"]["memories"]:
                del level["decoder"]["memories"]
            for memory in level["decoder"].get("memories", ()):
                if not memory["unpack"]:
                    del memory["unpack"]
        return d

    def shared_dict(self):
        d = {"rms_norm_eps": self.rms_norm_eps, "tie_word_embeddings": self.tie_word_embeddings}
        for name in ("bos_token_id", "eos_token_id"):
            if getattr(self, name) is not None:
                d[name] = getattr(self, name)
        return d

    def flat_dict(self):
        windows = self.stack.windows
        if len(set(windows) - {0}) > 1:
            raise ValueError(f"config: a flat model has one window for all layers that have one, not {windows}")
        kind = "ministral" if len(set(windows)) > 1 else "mistral" if windows[0] else "llama"
        architecture = f"{kind.capitalize()}ForCausalLM"
        d = {"model_type": kind, "architectures": [architecture], "hidden_act": "silu", "vocab_size": self.vocab_size}
        d.update(self.shared_dict())
        d.update({k: v for k, v in asdict(self.stack).items() if k != "sliding_window"})
        if kind != "llama":
            d["sliding_window"] = max(windows)
        if kind == "ministral":
            d["layer_types"] = ["sliding_attention" if w else "full_attention" for w in windows]
        return d

    def check(self):
        """Raises ValueError where the sizes do not fit together."""
        below, first = self.embedding_size, self.levels[0] if self.levels else None
        if self.token_encoder and self.token_encoder.hidden_size != below:
            raise ValueError(f"config: token_encoder.hidden_size must be embedding_size {below}")
        if self.content not in ("embedding", "states"):
            raise ValueError(f"config: content {self.content!r} is unknown, want \"embedding\" or \"states\"")
        if self.content == "states" and first.decoder.hidden_size != below:
            raise ValueError(f"config: content \"states\" needs decoder.hidden_size of level 1 to be embedding_size {below}")
        for i, level in enumerate(self.levels):
            where, rows = f"config: levels[{i}]", level.chunk_size
            if rows < 1 or level.prefix_length < 0:
                raise ValueError(f"{where}: chunk_size {rows} must be positive, prefix_length {level.prefix_length} not negative")
            if level.chunker not in ("concat", "linear"):
                raise ValueError(f"{where}: chunker {level.chunker!r} is unknown, want \"concat\" or \"linear\"")
            if level.chunker == "concat" and level.encoder.hidden_size != rows * below:
                raise ValueError(f"{where}: concat needs encoder.hidden_size {rows * below}, not {level.encoder.hidden_size}")
            if i > 0 and level.decoder.hidden_size != below:
                raise ValueError(f"{where}: decoder.hidden_size must be {below}, not {level.decoder.hidden_size}")
            if any(0 < w < level.rows for w in level.decoder.windows):
                raise ValueError(f"{where}: decoder.sliding_window must be 0 or at least {level.rows}")
            for m in level.decoder.memories:
                if not isinstance(m.unpack, bool):
                    raise ValueError(f"{where}: a memory's unpack must be true or false, not {m.unpack!r}")
                if not i + m.unpack <= m.level <= len(self.levels):
                    raise ValueError(f"{where}: a memory's level must be {i + m.unpack} ... {len(self.levels)}, not {m.level}")
                if not m.layers or sorted(set(m.layers)) != m.layers or not 0 <= m.layers[0] <= m.layers[-1] < level.decoder.num_hidden_layers:
                    raise ValueError(f"{where}: a memory's layers must be increasing numbers of the decoder's layers, not {m.layers}")
            below = level.encoder.hidden_size
        if not self.rms_norm_eps > 0:
            raise ValueError(f"config: rms_norm_eps must be above 0, not {self.rms_norm_eps}")
        if any(len(level.decoder.memories) > 64 for level in self.levels):
            raise ValueError("config: a decoder has at most 64 memories")
        stacks = [s for level in self.levels for s in (level.encoder, level.decoder, *level.decoder.memories)]
        for stack in stacks + [s for s in (self.stack, self.token_encoder) if s]:
            if stack.num_attention_heads % stack.num_key_value_heads or stack.rope_theta and stack.head_dim % 2:
                raise ValueError("config: num_key_value_heads must divide num_attention_heads, "
                                 "and head_dim be even where rows are turned")
            if stack.rope_theta != 0 and not 1 <= stack.rope_theta < float("inf"):
                raise ValueError(f"config: rope_theta must be 0 or at least 1, not {stack.rope_theta}")
            windows = stack.sliding_window if isinstance(stack.sliding_window, list) else [stack.sliding_window]
            if any(type(w) is not int or w < 0 for w in windows):
                raise ValueError(f"config: sliding_window must be 0 or more, not {stack.sliding_window}")
            if isinstance(stack.sliding_window, list) and len(stack.sliding_window) != stack.num_hidden_layers:
                raise ValueError("config: a list sliding_window must have one window a layer")


# --- a stack: causal LLaMA layers and a final norm -------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight


@functools.lru_cache(maxsize=64)
def rope_table(rows, head_dim, theta, dtype, device):
    """cos and sin [rows, head_dim/2] of position times frequency, the angles in float64."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.arange(rows, dtype=torch.float64)[:, None] * frequency
    return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def rotate(x, theta):
    """RoPE, half-split, on x [B, H, n, head_dim] at positions 0 ... n-1."""
    if theta == 0:
        return x
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = rope_table(x.shape[2], x.shape[3], theta, wide, x.device)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def bias_of(visible, dtype):
    """0 where visible, else minus infinity: what is added to attention scores."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, float("-inf"))


@functools.lru_cache(maxsize=64)
def dense_mask(rows, window, dtype, device):
    """Bias [n, n]: may row i (down) see row j (across)?"""
    i = torch.arange(rows, device=device)
    ahead = i[:, None] - i[None, :]
    return bias_of((ahead >= 0) & (ahead < (window or rows)), dtype)


@functools.lru_cache(maxsize=64)
def block_mask(blocks, window, dtype, device):
    """Bias [blocks, w, 2w]: may row i of a block see row j of (the block before, this block)?"""
    i = torch.arange(window, device=device)[:, None] + window
    j = torch.arange(2 * window, device=device)[None, :]
    visible = ((j <= i) & (i - j < window)).repeat(blocks, 1, 1)
    visible[0, :, :window] = False  # nothing stands before the first block
    return bias_of(visible, dtype)


def softmax_attention(q, k, v, bias):
    """Plain attention: q [..., n, d], k and v [..., m, d], bias [..., n, m]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias
    wide = torch.promote_types(scores.dtype, torch.float32)
    return torch.softmax(scores, -1, dtype=wide).to(v.dtype) @ v


def attention(q, k, v, window):
    """Causal attention of q, k, v [B, H, n, d]; a row sees the last `window` rows (0: all)."""
    b, h, n, d = q.shape
    if window == 0 or n <= 2 * window:
        return softmax_attention(q, k, v, dense_mask(n, window, q.dtype, q.device))

    # Long text, short window: blocks of w rows see themselves and the block before. What the
    # padding on the right computes is cut off again; no earlier row sees it.
    blocks = -(-n // window)
    pad = blocks * window - n
    q, k, v = (F.pad(x, (0, 0, 0, pad)).view(b, h, blocks, window, d) for x in (q, k, v))
    k, v = (torch.cat((F.pad(x[:, :, :-1], (0, 0, 0, 0, 1, 0)), x), dim=3) for x in (k, v))
    out = softmax_attention(q, k, v, block_mask(blocks, window, q.dtype, q.device))
    return out.reshape(b, h, blocks * window, d)[:, :, :n]


class Attention(nn.Module):
    def __init__(self, s, window):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = s.num_attention_heads, s.num_key_value_heads, s.head_dim
        self.window, self.theta = window, s.rope_theta
        self.q_proj = nn.Linear(s.hidden_size, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, s.hidden_size, bias=False)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q_proj(x).view(b, n, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, n, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, n, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, self.theta), rotate(k, self.theta)
        if self.kv_heads != self.heads:  # query head a reads key/value head a / group
            k, v = (y.repeat_interleave(self.heads // self.kv_heads, dim=1) for y in (k, v))
        out = attention(q, k, v, self.window)
        return self.o_proj(out.transpose(1, 2).reshape(b, n, -1))


class MLP(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.up_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.down_proj = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, s, eps, window):
        super().__init__()
        self.input_layernorm = RMSNorm(s.hidden_size, eps)
        self.self_attn = Attention(s, window)
        self.post_attention_layernorm = RMSNorm(s.hidden_size, eps)
        self.mlp = MLP(s)
        self.dropout = nn.Dropout(0.0)  # train.py sets its rate; nothing outside training knows of it

    def forward(self, x):
        x = x + self.dropout(self.self_attn(self.input_layernorm(x)))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Stack(nn.Module):
    def __init__(self, s, eps):
        super().__init__()
        self.layers = nn.ModuleList(Layer(s, eps, window) for window in s.windows)
        self.norm = RMSNorm(s.hidden_size, eps)

    def forward(self, x):
        """x [B, n, D] -> [B, n, D]."""
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


# --- memory: decoder rows attend to the states of finished units ------------------------------


class Memory(nn.Module):
    """Keys and values of M = [sink ; states of a level, or of their children], which the decoder layers that read them share."""

    def __init__(self, c, widths, chunks, eps):
        super().__init__()
        width = widths[c.level - c.unpack]
        self.unpack = nn.Linear(widths[c.level], chunks[c.level] * width) if c.unpack else None
        self.kv_heads, self.head_dim, self.theta = c.num_key_value_heads, c.head_dim, c.rope_theta
        self.level, self.window = c.level, c.sliding_window
        self.sink = nn.Parameter(torch.zeros(width))
        self.norm = RMSNorm(width, eps)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)

    def forward(self, levels):
        """levels[k] are the states of level k -> keys and values of M [B, kv heads, 1+n, head_dim]."""
        states = levels[self.level]
        if self.unpack:
            below = levels[self.level - 1]
            states = below + self.unpack(states).view(below.shape)
        b = states.shape[0]
        m = self.norm(torch.cat((self.sink.to(states.dtype).expand(b, 1, -1), states), dim=1))
        k = self.k_proj(m).view(b, -1, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(m).view(b, -1, self.kv_heads, self.head_dim).transpose(1, 2)
        return rotate_at(k, torch.arange(m.shape[1], device=m.device), self.theta), v


def rotate_at(x, positions, theta):
    """RoPE, half-split, on x [B, H, n, head_dim] at positions [n]."""
    if theta == 0:
        return x
    wide = torch.promote_types(x.dtype, torch.float32)
    frequency = theta ** (-torch.arange(0, x.shape[3], 2, dtype=torch.float64, device=x.device) / x.shape[3])
    angle = positions[:, None].double() * frequency
    cos, sin = angle.cos().to(wide), angle.sin().to(wide)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def memory_attention(q, k, v, seen, window):
    """q [B, H, n, d] on k and v [B, H, m, d]: row i sees rows 0 ... seen[i], of them the last `window` (0: all)."""
    ahead = seen[:, None] - torch.arange(k.shape[2], device=q.device)[None, :]
    visible = (ahead >= 0) & (ahead < (window or k.shape[2] + 1))
    return softmax_attention(q, k, v, bias_of(visible, q.dtype))


class MemoryAttention(nn.Module):
    def __init__(self, c, width, eps):
        super().__init__()
        self.heads, self.head_dim, self.theta, self.window = c.num_attention_heads, c.head_dim, c.rope_theta, c.sliding_window
        self.norm = RMSNorm(width, eps)
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=False)

    def forward(self, x, k, v, seen, at):
        """x [B, n, W] -> what is added to it; seen [n] is the last row of M that each row sees, at [n] its position among them."""
        b, n, _ = x.shape
        q = self.q_proj(self.norm(x)).view(b, n, self.heads, self.head_dim).transpose(1, 2)
        q = rotate_at(q, at, self.theta)
        if k.shape[1] != self.heads:  # query head a reads key/value head a / group
            k, v = (y.repeat_interleave(self.heads // y.shape[1], dim=1) for y in (k, v))
        out = memory_attention(q, k, v, seen, self.window)
        return self.o_proj(out.transpose(1, 2).reshape(b, n, -1))


class Decoder(Stack):
    """A stack whose layers may read memories, of sequences that may be cut into units."""

    def __init__(self, s, eps, widths, chunks):
        super().__init__(s, eps)
        if s.memories:
            self.memories = nn.ModuleList(Memory(m, widths, chunks, eps) for m in s.memories)
        for e, m in enumerate(s.memories):
            for n in m.layers:
                layer = self.layers[n]
                if not hasattr(layer, "memory_attn"):
                    layer.memory_attn = nn.ModuleDict()
                layer.memory_attn[str(e)] = MemoryAttention(m, s.hidden_size, eps)

    def forward(self, x, unit=0, memories=()):
        """x [B, n, W] -> [B, n, W]; every `unit` rows are a sequence of their own (0: all are one)."""
        shape = x.shape
        for layer in self.layers:
            if hasattr(layer, "memory_attn"):
                for e, attend in layer.memory_attn.items():
                    x = x + layer.dropout(attend(x, *memories[int(e)]))
            x = layer(x.view(-1, unit, shape[2])).view(shape) if unit else layer(x)
        return self.norm(x)


# --- a level: chunker and encoder going up, converter and decoder coming down ----------------


class LinearChunker(nn.Module):
    def __init__(self, width_in, width_out, eps):
        super().__init__()
        self.norm = RMSNorm(width_in, eps)
        self.proj = nn.Linear(width_in, width_out)

    def forward(self, x):
        return self.proj(self.norm(x))


class Level(nn.Module):
    def __init__(self, c, widths, chunks, i, eps):
        """widths[k] is the width of the states of level k, chunks[k] how many of level k-1 a unit holds; this is level i+1."""
        super().__init__()
        self.chunk, self.prefix, self.stream = c.chunk_size, c.prefix_length, c.stream
        width, width_down = c.encoder.hidden_size, c.decoder.hidden_size
        self.chunker = LinearChunker(self.chunk * widths[i], width, eps) if c.chunker == "linear" else nn.Identity()
        self.encoder = Stack(c.encoder, eps)
        self.converter = nn.Linear(width, (self.prefix or self.chunk) * width_down)
        self.decoder = Decoder(c.decoder, eps, widths, chunks)

    def encode(self, below):
        """below [B, n*C, D_below] -> states of the n units [B, n, D]."""
        b, rows, width = below.shape
        return self.encoder(self.chunker(below.reshape(b, rows // self.chunk, self.chunk * width)))

    def decode(self, condition, content, states, sizes):
        """condition [B, n, D], content [B, n*C, W] -> Xhat of the children [B, n*C, W].

        states[k] are those of level k, whose units hold sizes[k] children of this level.
        """
        b, n, _ = condition.shape
        width, chunk, prefix = content.shape[-1], self.chunk, self.prefix
        converted = self.converter(condition).view(b, n, prefix or chunk, width)
        children = torch.arange(n * chunk, device=content.device).view(n, chunk)
        if prefix == 0:  # the condition is added to the rows of the children, each of which holds the child before
            rows = F.pad(content, (0, 0, 1, -1)).view(b, n, chunk, width) + converted
            before, first = children, 0
        else:  # the last prefix row predicts the first child
            rows = torch.cat((converted, content.view(b, n, chunk, width)), dim=2)
            before, first = torch.cat((children[:, :1].expand(n, prefix), children + 1), dim=1), prefix - 1
            if not self.stream:  # every unit is a sequence of its own; its last child predicts nothing
                rows, before = rows[:, :, :-1], before[:, :-1]
        size, before = rows.shape[2], before.reshape(-1)
        memories = []
        for m in getattr(self.decoder, "memories", []):
            seen = at = torch.div(before, sizes[m.level], rounding_mode="floor")
            if m.unpack:  # the children of whole units
                each = sizes[m.level] // sizes[m.level - 1]
                seen, at = seen * each, torch.div(before, sizes[m.level - 1], rounding_mode="floor")
            memories.append((*m(states), seen, at))
        x = self.decoder(rows.reshape(b, n * size, width), 0 if self.stream else size, memories)
        return x.view(b, n, size, width)[:, :, first : first + chunk].reshape(b, n * chunk, width)


# --- models ----------------------------------------------------------------------------------


class Embedding(nn.Module):
    """Holds embed_tokens, so that the tensor is named as in the file."""

    def __init__(self, vocab, width):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, width)

    def forward(self, ids):
        return self.embed_tokens(ids)


def widened(x):
    """x in at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class LanguageModel(nn.Module):
    """What flat and hierarchical models share: head, loss, initialisation."""

    def project(self, x):
        if self.cfg.tie_word_embeddings:
            return F.linear(x, self.output_embedding().embed_tokens.weight)
        return self.lm_head(x)

    def forward(self, ids):
        """ids [B, T] -> logits [B, T, V]."""
        return self.project(self.hidden(ids)["Xhat0"])

    def predicted(self, hidden, targets):
        """The rows of Xhat0 [B*n, W] that predict targets [B, T], and those targets [B*n]."""
        x = hidden["Xhat0"]
        if self.cfg.flat:
            x, targets = x[:, :-1], targets[:, 1:]
        return x.reshape(-1, x.shape[-1]), targets.reshape(-1)

    def loss(self, ids, alpha=0.0, mask=None, given=None, teachers=(), taught=0.0):
        """Mean cross-entropy in nats of the tokens in mask [B, T] (default: all that are predicted), from the tokens
        `given` (default: ids).

        `taught` is the share of it, of all or of each row [B, 1], that is not with the tokens themselves but with the
        mean of what `teachers`, models that are flat where this one is, predict from ids.
        """
        hidden = self.hidden(ids if given is None else given)
        x, targets = self.predicted(hidden, ids if mask is None else ids.masked_fill(~mask, IGNORED))
        with torch.no_grad():
            known = [teacher.predicted(teacher.hidden(ids), ids)[0] for teacher in teachers]
            shares = self.predicted(hidden, torch.as_tensor(taught, device=ids.device).expand(ids.shape))[1]
        # In slices, so that the logits of a slice stay in the CPU's cache.
        size = 512 if x.device.type == "cpu" else 16384
        losses = []
        for labels, share, rows, *others in zip(*(y.split(size) for y in (targets, shares, x, *known))):
            logits = widened(self.project(rows))
            nats = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
            if teachers:
                with torch.no_grad():
                    predictions = [torch.softmax(widened(t.project(y)), -1) for t, y in zip(teachers, others)]
                    soft = sum(predictions) / len(predictions)
                cross = -(soft * torch.log_softmax(logits, -1)).sum(-1)
                nats = torch.where(labels != IGNORED, (1 - share) * nats + share * cross, 0)
            losses.append(nats.sum())
        loss = torch.stack(losses).sum() / (targets != IGNORED).sum()
        if alpha and len(self.cfg.levels) > 1:
            loss = loss + alpha * self.reconstruction(hidden)
        return loss

    def init_weights(self, seed):
        """Random weights whose first loss is near ln V and whose every parameter gets a gradient."""
        g = torch.Generator().manual_seed(seed)

        def normal(p, std):
            p.data.copy_(torch.randn(p.shape, generator=g) * std)

        depth = {}  # layers of each stack, by prefix: their outputs add up
        for name, p in self.named_parameters():
            if ".layers." in name:
                stack, rest = name.rsplit(".layers.", 1)
                depth[stack] = max(depth.get(stack, 0), int(rest.split(".")[0]) + 1)
        for name, p in self.named_parameters():
            if name.endswith("norm.weight"):
                p.data.fill_(1.0)
            elif name.endswith(".bias"):
                p.data.zero_()
            elif "embed_tokens" in name and self.cfg.tie_word_embeddings and p is self.output_embedding().embed_tokens.weight:
                # A tied head sees its own input token: keep that logit small.
                normal(p, min(0.02, 2.0 / p.shape[1]))
            elif "embed_tokens" in name or name in ("start_latent", "lm_head.weight") or name.endswith(".sink"):
                normal(p, 0.02)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                layers = depth[name.rsplit(".layers.", 1)[0]]
                normal(p, 0.5 * p.shape[1] ** -0.5 * (2 * layers) ** -0.5)
            else:
                normal(p, 0.5 * p.shape[1] ** -0.5)
        return self


class Flat(LanguageModel):
    """Zero levels: an ordinary LLaMA transformer. Row i predicts token i+1."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.model = Stack(cfg.stack, cfg.rms_norm_eps)
        self.model.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.stack.hidden_size)
        if not cfg.tie_word_embeddings:
            self.lm_head = nn.Linear(cfg.stack.hidden_size, cfg.vocab_size, bias=False)

    def output_embedding(self):
        return self.model

    def hidden(self, ids):
        return {"Xhat0": self.model(self.model.embed_tokens(ids))}

    states = hidden


class Photon(LanguageModel):
    """L >= 1 levels. Row i predicts token i from the tokens before it."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.encoder = Embedding(cfg.vocab_size, cfg.embedding_size)
        if cfg.token_encoder:
            self.token_encoder = Stack(cfg.token_encoder, cfg.rms_norm_eps)
        widths = [cfg.embedding_size] + [level.encoder.hidden_size for level in cfg.levels]
        chunks = [1] + [level.chunk_size for level in cfg.levels]
        self.levels = nn.ModuleList(Level(level, widths, chunks, i, cfg.rms_norm_eps) for i, level in enumerate(cfg.levels))
        self.start_latent = nn.Parameter(torch.zeros(widths[-1]))
        if cfg.content == "embedding":
            self.decoder = Embedding(cfg.vocab_size, cfg.levels[0].decoder.hidden_size)
        if not cfg.tie_word_embeddings:
            self.lm_head = nn.Linear(cfg.levels[0].decoder.hidden_size, cfg.vocab_size, bias=False)

    def output_embedding(self):
        return self.decoder if self.cfg.content == "embedding" else self.encoder

    def hidden(self, ids):
        """X1 ... XL and Xhat0 ... Xhat(L-1) of ids padded on the right to whole meta-contexts; Xhat0 cut to T."""
        tokens = ids.shape[1]
        padded = F.pad(ids, (0, -tokens % self.cfg.meta_context))

        x, out = self.encoder(padded), {}
        if self.cfg.token_encoder:
            x = self.token_encoder(x)
        states = [x]
        for l, level in enumerate(self.levels, 1):
            x = out[f"X{l}"] = level.encode(x)
            states.append(x)

        # The top is conditioned on the unit before (start_latent for the first), what lies below
        # on what was decoded for the unit itself.
        start = self.start_latent.to(x.dtype).expand(x.shape[0], 1, -1)
        condition = torch.cat((start, x[:, :-1]), dim=1)
        for l in range(len(self.levels), 0, -1):
            content = self.decoder(padded) if l == 1 and self.cfg.content == "embedding" else states[l - 1]
            sizes = {l - 1: 1}
            for k in range(l, len(self.levels) + 1):
                sizes[k] = sizes[k - 1] * self.levels[k - 1].chunk
            condition = out[f"Xhat{l - 1}"] = self.levels[l - 1].decode(condition, content, states, sizes)
        out["Xhat0"] = out["Xhat0"][:, :tokens]
        if self.cfg.token_encoder:
            out["X0"] = states[0][:, :tokens]
        return out

    def states(self, ids):
        """The rows of hidden that the text decides: X of whole units, Xhat also of the unit begun."""
        out, tokens, size = self.hidden(ids), ids.shape[1], 1
        for l, level in enumerate(self.levels, 1):
            size *= level.chunk
            out[f"X{l}"] = out[f"X{l}"][:, : tokens // size]
            if l < len(self.levels):
                out[f"Xhat{l}"] = out[f"Xhat{l}"][:, : -(-tokens // size)]
        return out

    def reconstruction(self, hidden):
        """Mean over levels l >= 2 of 1 - cos(Xhat, X) one level below, X held fixed."""
        below = range(1, len(self.levels))
        terms = [1 - F.cosine_similarity(hidden[f"Xhat{l}"], hidden[f"X{l}"].detach(), dim=-1).mean() for l in below]
        return sum(terms) / len(terms)


def build(cfg):
    return (Flat if cfg.flat else Photon)(cfg)


def count_parameters(model):
    return sum(p.numel() for p in model.parameters())
