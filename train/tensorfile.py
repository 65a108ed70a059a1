"""safetensors files: a writer and a reader of our own, the dtypes, and the int8 form.

A file is the length of the header (8 bytes, little-endian), a JSON header, and the tensors one after another.
In memory a tensor is (dtype, array); BF16, which numpy lacks, is an array of its uint16 bits.

The int8 form of a matrix NAME [out, in] is two tensors: NAME, I8 [out, in], and NAME.scales, BF16 [out, ceil(in/32)],
one scale for each 32 neighbours along a row. A weight is q * scale, with q in -127 ... 127.
"""

import json
import math
import os
import struct

import numpy as np

NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "<i1", "I32": "<i4"}
GROUP = 32


def write(path, tensors, metadata=None):
    """Writes {name: (dtype, array)}; widest dtypes first, so that every tensor is aligned to its own."""
    order = sorted(tensors, key=lambda name: (-np.dtype(NUMPY[tensors[name][0]]).itemsize, name))
    header, end = {"__metadata__": metadata or {"format": "pt"}}, 0
    for name in order:
        dtype, array = tensors[name]
        start, end = end, end + math.prod(array.shape) * np.dtype(NUMPY[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".tmp", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            dtype, array = tensors[name]
            file.write(_exact(name, array, NUMPY[dtype]).tobytes())
    os.replace(path + ".tmp", path)


def read(path):
    """The tensors of a file that we wrote; the strict reader of untrusted files is the Go library's."""
    with open(path, "rb") as file:
        data = file.read()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        array = np.frombuffer(data[8 + size + start : 8 + size + end], NUMPY[entry["dtype"]])
        out[name] = entry["dtype"], array.reshape(entry["shape"])
    return out


def write_model(directory, tensors, shards=1):
    """Writes model.safetensors, or several files of about equal size and their model.safetensors.index.json."""
    if shards == 1:
        write(os.path.join(directory, "model.safetensors"), tensors)
        return
    total = sum(array.nbytes for _, array in tensors.values())
    places, done = {}, 0
    for name, (_, array) in tensors.items():
        places[name] = f"model-{min(shards - 1, done * shards // total) + 1:05}-of-{shards:05}.safetensors"
        done += array.nbytes
    for file in sorted(set(places.values())):
        write(os.path.join(directory, file), {name: tensors[name] for name in tensors if places[name] == file})
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}, file, indent=1)
        file.write("\n")


def read_model(directory):
    index = os.path.join(directory, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read(os.path.join(directory, "model.safetensors"))
    with open(index) as file:
        places = json.load(file)["weight_map"]
    out = {}
    for name in sorted(set(places.values())):
        out.update(read(os.path.join(directory, name)))
    return out


def store(weights, form, keep="F32"):
    """{name: float array} -> {name: (dtype, array)}.

    `form` is F32, F16, BF16 or I8; with I8 the matrices are quantised and the vectors stored as `keep`.
    """
    out = {}
    for name, x in weights.items():
        if form == "I8" and x.ndim == 2:
            q, scales = quantise(x)
            out[name] = "I8", q
            out[name + ".scales"] = "BF16", scales
        else:
            dtype = keep if form == "I8" else form
            out[name] = dtype, _round(name, x, dtype)
    return out


def values(tensors):
    """{name: (dtype, array)} -> {name: float64 array}: exactly what the stored weights mean."""
    out = {}
    for name, (dtype, array) in tensors.items():
        if name.endswith(".scales"):
            continue
        if dtype == "I8":
            columns = np.arange(array.shape[1]) // GROUP
            scales = from_bf16(tensors[name + ".scales"][1])
            out[name] = array * scales[:, columns].astype(np.float64)
        else:
            out[name] = (from_bf16(array) if dtype == "BF16" else array).astype(np.float64)
    return out


def load(path):
    """The state_dict (float32 tensors) of a model directory or of one file."""
    import torch

    stored = read_model(path) if os.path.isdir(path) else read(path)
    return {name: torch.from_numpy(x.astype(np.float32)) for name, x in values(stored).items()}


def quantise(x):
    """A matrix [out, in] -> q int8 [out, in] and scales as bf16 bits [out, ceil(in/32)]."""
    rows, columns = x.shape
    groups = -(-columns // GROUP)
    padded = np.zeros((rows, groups * GROUP), np.float32)
    padded[:, :columns] = x
    padded = padded.reshape(rows, groups, GROUP)
    scales = to_bf16(np.abs(padded).max(-1) / np.float32(127))
    divisor = from_bf16(scales)[..., None]
    q = np.divide(padded, divisor, out=np.zeros_like(padded), where=divisor > 0)
    q = np.clip(np.rint(q), -127, 127).astype(np.int8)
    return q.reshape(rows, -1)[:, :columns].copy(), scales


def to_bf16(x):
    """float -> bf16 bits, to nearest, ties to even. x must be finite."""
    bits = np.ascontiguousarray(x, "<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def from_bf16(bits):
    return (bits.astype("<u4") << 16).view("<f4")


def _round(name, x, dtype):
    with np.errstate(over="ignore"):  # found below
        y = to_bf16(x) if dtype == "BF16" else np.asarray(x).astype(NUMPY[dtype])
    if not np.isfinite(from_bf16(y) if dtype == "BF16" else y).all():
        raise ValueError(f"tensor {name}: a value is not finite in {dtype}: look for a diverged training, or store BF16")
    return y


def _exact(name, array, dtype):
    if array.dtype != np.dtype(dtype):
        raise TypeError(f"tensor {name}: the array is {array.dtype}, the file wants {dtype}: convert it first")
    return np.ascontiguousarray(array)
