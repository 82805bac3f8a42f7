"""The glossary points to files that are there, and has one row for each word."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| (?!word|---)(.+?) \| (.+) \| `(.+)` \|$", re.MULTILINE)


def test_the_glossary_names_each_word_once_and_files_that_exist() -> None:
    text = (ROOT / "docs" / "design" / "0009-glossary.md").read_text()
    rows = ROW.findall(text)
    words = [word for names, _, _ in rows for word in names.split(", ")]
    assert len(words) > 50 and len(rows) == sum(line.startswith("| ") for line in text.splitlines()) - 2 * text.count(
        "| word |"
    )
    assert sorted(words) == sorted(set(words))
    assert [path for _, _, path in rows if not (ROOT / "funcnn" / path).is_file()] == []
    assert [meaning for _, meaning, _ in rows if not meaning.endswith(".")] == []
