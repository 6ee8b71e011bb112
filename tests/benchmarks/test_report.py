"""The README's table from a record."""

import json

import pytest

from imagen_fast.benchmarks import report
from imagen_fast.benchmarks.cli import main
from imagen_fast.benchmarks.contender import OURS
from imagen_fast.errors import InvalidInput
from imagen_fast.figures import put_into


def entry(case, median):
    spread = None if median is None else median / 10
    return {"case": case, "implementation": OURS, "median": median, "spread": spread}


RECORD = {
    "machine": {
        "processor": "a chip",
        "threads": 2,
        "cores": 2,
        "versions": {"torch": "9.9"},
        "commit": None,
    },
    "results": [entry("mae a step", 0.5), entry("mae b step", None)],
    "ratios": [
        {"case": "mae a step", "versus": "peer bf16", "ratio": 1.5, "peer_median": 0.75},
        {"case": "mae c step", "versus": "peer fp32", "ratio": 2.0, "peer_median": 0.1},
    ],
}
TABLE = """\
| case | ours, ms [spread] | peer bf16, ms (ratio) | peer fp32, ms (ratio) |
| --- | ---: | ---: | ---: |
| mae a step | 500 [50] | 750 (1.50×) | not measured |
| mae b step | not measured | not measured | not measured |

Medians [interquartile range]; ratio: the peer's time over ours. a chip, 2 threads on 2 cores; torch 9.9."""


def test_table():
    assert report.markdown(RECORD) == TABLE


def test_each_subject_has_a_table_with_its_own_peers():
    record = RECORD | {
        "results": [entry("mae a step", 0.5), entry("sample a", 2.0), entry("mae b step", 0.1)],
        "ratios": [
            {"case": "mae a step", "versus": "peer", "ratio": 1.5, "peer_median": 0.75},
            {"case": "sample a", "versus": "other", "ratio": 2.0, "peer_median": 4.0},
        ],
    }
    assert report.markdown(record).split("\n\n")[:2] == [
        "| case | ours, ms [spread] | peer, ms (ratio) |\n"
        "| --- | ---: | ---: |\n"
        "| mae a step | 500 [50] | 750 (1.50×) |\n"
        "| mae b step | 100 [10] | not measured |",
        "| case | ours, ms [spread] | other, ms (ratio) |\n"
        "| --- | ---: | ---: |\n"
        "| sample a | 2,000 [200] | 4,000 (2.00×) |",
    ]


def test_a_column_for_what_is_known_of_roofline_and_memory():
    first = entry("mae a step", 0.5) | {"percent_of_roofline": 43.2, "bound": "matrix", "peak_bytes": 2**21}
    second = entry("mae b step", 0.5) | {"refused": "105%", "evidence": {"peak_bytes_of_a_call": 2**20}}
    third = entry("mae c step", 0.5) | {"percent_of_roofline": 0.123, "bound": "exp"}
    lines = report.markdown(RECORD | {"results": [first, second, third], "ratios": []}).splitlines()
    assert lines[0] == "| case | ours, ms [spread] | of roofline | peak memory |"
    assert [line.split(" | ")[2:] for line in lines[2:5]] == [
        ["43% matrix", "2 MiB |"],
        ["over 100%: refused", "1 MiB |"],
        ["0.12% exp", "not measured |"],
    ]


def test_only_the_text_between_its_markers_is_replaced(tmp_path):
    file, readme = tmp_path / "train-cpu.json", tmp_path / "README.md"
    file.write_text(json.dumps(RECORD))
    other = "<!-- figures:other -->\nold\n<!-- /figures -->\n"
    frame = "# Title\n<!-- figures:train-cpu -->\n{}\n<!-- /figures -->\n" + other
    readme.write_text(frame.format("old\nlines"))
    for _ in range(2):
        assert main(["report", str(file), "--readme", str(readme)]) == 0
        assert readme.read_text() == frame.format(TABLE)


def test_the_table_is_printed(tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(RECORD))
    assert main(["report", str(tmp_path / "r.json")]) == 0
    assert capsys.readouterr().out == TABLE + "\n"


def test_missing_markers_are_named(tmp_path):
    (tmp_path / "README.md").write_text("nothing here")
    with pytest.raises(InvalidInput, match="lacks the markers <!-- figures:train-cpu -->"):
        put_into(tmp_path / "README.md", "train-cpu", "table")


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "not measured"), (1.2345, "1,234"), (0.0123, "12.3"), (1.23e-5, "0.0123")]
)
def test_milliseconds(seconds, text):
    assert report.milliseconds(seconds) == text
