from __future__ import annotations

from .blocks import ROOT, documents, filled

for path in documents():
    before = path.read_text("utf-8")
    after = filled(before)
    if after != before:
        path.write_text(after, "utf-8")
        print(f"written anew: {path.relative_to(ROOT)}")
