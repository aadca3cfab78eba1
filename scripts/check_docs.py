#!/usr/bin/env python3
"""Checks that every relative link in the repository's Markdown leads to a file, and to a heading if it names one."""

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")


def anchors(page):
    """The headings of a page, as links name them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        yield kept.replace(" ", "-")


def problems(page):
    """What is wrong with the links of a page."""
    text = CODE.sub("", FENCED.sub("", page.read_text(encoding="utf-8")))
    for link in LINK.findall(text):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists():
            yield f"{page}: {link}: there is no such file"
        elif anchor and anchor not in anchors(target):
            yield f"{page}: {link}: there is no such heading"


def main():
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    pages = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    found = [problem for page in pages if Path(page).exists() for problem in problems(Path(page))]
    print("\n".join(found) if found else f"every link of {len(pages)} pages leads somewhere")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
