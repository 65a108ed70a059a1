"""Documents of a text file.

A document is the lines before a line `<|endoftext|>`, without the newline that ends the last of them.
"""

import lzma

SEPARATOR = "<|endoftext|>"


def documents(spec):
    """Yields the documents of `spec`: FILE, FILE.xz, or either with `@FIRST:LAST` (a half-open range, counted from 0)."""
    path, _, span = spec.partition("@")
    first, last = _span(spec, span)
    index, lines = 0, []
    with open_text(path) as file:
        for line in file:
            if line.rstrip("\r\n") != SEPARATOR:
                lines.append(line)
                continue
            if index >= first:
                yield "".join(lines).removesuffix("\n")
            index, lines = index + 1, []
            if last is not None and index == last:
                return
    if "".join(lines).strip():
        if index >= first:
            yield "".join(lines).removesuffix("\n")
        index += 1
    if last is not None and index < last:
        raise ValueError(f"{spec}: the file ends after {index} documents, before document {last}: shorten the range")


def open_text(path):
    opener = lzma.open if path.endswith(".xz") else open
    return opener(path, "rt", encoding="utf-8", newline="\n")


def _span(spec, span):
    if not span:
        return 0, None
    first, colon, last = span.partition(":")
    try:
        first, last = int(first or 0), int(last) if last else None
    except ValueError:
        colon = ""
    if not colon or first < 0 or (last is not None and last <= first):
        raise ValueError(f"{spec}: the document range is not FIRST:LAST with FIRST < LAST")
    return first, last
