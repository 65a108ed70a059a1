"""The tensors of a model, by name and shape, from its configuration alone: nothing is allocated."""

from math import prod


def shapes(cfg):
    """{name: shape} of everything in the model's file, in the order of the arithmetic."""
    out = {}
    vocab = cfg.vocab_size
    if cfg.flat:
        width = cfg.stack.hidden_size
        out["model.embed_tokens.weight"] = (vocab, width)
        out.update(_stack("model.", cfg.stack))
    else:
        out["encoder.embed_tokens.weight"] = (vocab, cfg.embedding_size)
        if cfg.token_encoder:
            out.update(_stack("token_encoder.", cfg.token_encoder))
        below = cfg.embedding_size
        widths = [below] + [level.encoder.hidden_size for level in cfg.levels]
        for i, level in enumerate(cfg.levels):
            at, above = f"levels.{i}.", level.encoder.hidden_size
            if level.chunker == "linear":
                out[at + "chunker.norm.weight"] = (level.chunk_size * below,)
                out[at + "chunker.proj.weight"] = (above, level.chunk_size * below)
                out[at + "chunker.proj.bias"] = (above,)
            out.update(_stack(at + "encoder.", level.encoder))
            rows = (level.prefix_length or level.chunk_size) * level.decoder.hidden_size
            out[at + "converter.weight"] = (rows, above)
            out[at + "converter.bias"] = (rows,)
            out.update(_stack(at + "decoder.", level.decoder))
            for e, memory in enumerate(level.decoder.memories):
                out.update(_memory(at + "decoder.", e, memory, cfg, widths, level.decoder.hidden_size))
            below = above
        width = cfg.levels[0].decoder.hidden_size
        out["start_latent"] = (below,)
        if cfg.content == "embedding":
            out["decoder.embed_tokens.weight"] = (vocab, width)
    if not cfg.tie_word_embeddings:
        out["lm_head.weight"] = (vocab, width)
    return out


def count(cfg):
    return sum(prod(shape) for shape in shapes(cfg).values())


def _memory(at, e, m, cfg, widths, decoder_width):
    queries, keys = m.num_attention_heads * m.head_dim, m.num_key_value_heads * m.head_dim
    width = widths[m.level - m.unpack]
    memory, out = f"{at}memories.{e}.", {}
    if m.unpack:
        rows = cfg.levels[m.level - 1].chunk_size * width
        out = {memory + "unpack.weight": (rows, widths[m.level]), memory + "unpack.bias": (rows,)}
    out.update({
        memory + "sink": (width,),
        memory + "norm.weight": (width,),
        memory + "k_proj.weight": (keys, width),
        memory + "v_proj.weight": (keys, width),
    })
    for n in m.layers:
        layer = f"{at}layers.{n}.memory_attn.{e}."
        out[layer + "norm.weight"] = (decoder_width,)
        out[layer + "q_proj.weight"] = (queries, decoder_width)
        out[layer + "o_proj.weight"] = (decoder_width, queries)
    return out


def _stack(at, s):
    out = {}
    queries, keys = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
    for n in range(s.num_hidden_layers):
        layer = f"{at}layers.{n}."
        out[layer + "input_layernorm.weight"] = (s.hidden_size,)
        out[layer + "self_attn.q_proj.weight"] = (queries, s.hidden_size)
        out[layer + "self_attn.k_proj.weight"] = (keys, s.hidden_size)
        out[layer + "self_attn.v_proj.weight"] = (keys, s.hidden_size)
        out[layer + "self_attn.o_proj.weight"] = (s.hidden_size, queries)
        out[layer + "post_attention_layernorm.weight"] = (s.hidden_size,)
        out[layer + "mlp.gate_proj.weight"] = (s.intermediate_size, s.hidden_size)
        out[layer + "mlp.up_proj.weight"] = (s.intermediate_size, s.hidden_size)
        out[layer + "mlp.down_proj.weight"] = (s.hidden_size, s.intermediate_size)
    out[at + "norm.weight"] = (s.hidden_size,)
    return out
