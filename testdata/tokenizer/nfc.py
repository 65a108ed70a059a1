"""Makes tokenizer_nfc.txt from the Unicode Character Database (Debian package unicode-data).

    python3 testdata/tokenizer/nfc.py /usr/share/unicode > tokenizer_nfc.txt
"""

import re
import sys
from collections import defaultdict

folder = sys.argv[1]
with open(f"{folder}/DerivedNormalizationProps.txt", encoding="utf-8") as file:
    properties = file.read()
version = re.match(r"# DerivedNormalizationProps-(\S+)\.txt", properties).group(1)
excluded = set()
for first, last in re.findall(r"^(\w+)(?:\.\.(\w+))? *; Full_Composition_Exclusion", properties, re.M):
    excluded.update(range(int(first, 16), int(last or first, 16) + 1))

classes, decompositions = defaultdict(list), []
with open(f"{folder}/UnicodeData.txt", encoding="utf-8") as file:
    for line in file:
        code, _, _, combining, _, decomposition, *_ = line.split(";")
        code = int(code, 16)
        if combining != "0":
            classes[int(combining)].append(code)
        if decomposition and not decomposition.startswith("<"):
            decompositions.append((code, [int(part, 16) for part in decomposition.split()]))

print(f"# Unicode {version}. Made by testdata/tokenizer/nfc.py.")
print("# class: the characters of that canonical combining class, as ranges.")
for combining in sorted(classes):
    ranges = []
    for code in classes[combining]:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    print(f"class {combining}", *(f"{a:X}-{b:X}" for a, b in ranges))
print("# A character and its canonical decomposition, Hangul left out; no: that is never put together again.")
for code, parts in decompositions:
    print("no" if code in excluded else "is", f"{code:X}", *(f"{part:X}" for part in parts))
