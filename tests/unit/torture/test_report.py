"""The report for people and for scripts."""

from __future__ import annotations

import json
import re

from penstock.faultplan import Plan, Slicing
from penstock.torture.cases import Case
from penstock.torture.program import Run
from penstock.torture.report import Report, document, html
from penstock.torture.verdict import Row

CASE = Case("utf8", "slicing", Plan(slicing=Slicing("utf8"), seed=7), True, "borders inside the characters")
ROW = Row(CASE, Run("<script>alert(1)</script>", "größer & kleiner", 1, 1.25), "crashed", "exit code 1: <b>")
LONG = Row(CASE, Run("x" * 100_000, "", 0, 1.0), "survived", "all of the content")
REPORT = Report("python app.py", "ep", "lmi", 7, 30.0, [ROW, LONG], "penstock torture --shape lmi -- python app.py")


def test_the_page_is_whole_and_what_programs_wrote_is_escaped() -> None:
    page = html(REPORT, now=0.0)
    assert "1970-01-01 00:00 UTC" in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "größer &amp; kleiner" in page
    assert "--only utf8 --seed 7 -- python app.py" in page
    assert not re.search(r"(?:src|href)=", page), "a report must need nothing from elsewhere"
    assert len(page) < 50_000
    assert "96000 characters more" in page


def test_the_document_is_json_and_counts() -> None:
    told = json.loads(json.dumps(document(REPORT)))
    assert told["counts"] == {"survived": 1, "lost content": 0, "hung": 0, "crashed": 1}
    row = told["rows"][0]
    assert row["plan"] == '{"slicing":{"mode":"utf8"},"seed":7}'
    assert row["repeat"] == "penstock torture --shape lmi --only utf8 --seed 7 -- python app.py"
    assert (row["outcome"], row["exit_code"], row["seconds"]) == ("crashed", 1, 1.25)
