"""Pages of docs/ with tables that a script makes, and the plots beside them. Needs nothing but the standard library."""

import re


def fill(page, name, text):
    """Puts text between the marks <!-- name --> and <!-- end -->."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
    if not pattern.search(page):
        raise ValueError(f"the page has no mark <!-- {name} -->")
    return pattern.sub(lambda m: m[1] + text + "\n" + m[2], page)


def save(path, width, height, shapes):
    """Writes an SVG picture of these shapes, in the page's colour where they have none."""
    with open(path, "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" '
                f'fill="currentColor" color="#444">\n' + "\n".join(shapes) + "\n</svg>\n")
