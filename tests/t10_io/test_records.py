"""Files of records: what is appended is there after a kill, and nothing that is damaged is believed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.errors import OutputError, ReadError
from somareg.io.records import append_record, read_records, write_records

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT, lambda inner: st.lists(inner), max_leaves=4
)
RECORDS = st.lists(st.dictionaries(TEXT, VALUES, min_size=1), max_size=4)


def read(file: Path) -> list[object]:
    return read_records(file, "records", 1).values


@given(RECORDS, RECORDS)
@settings(max_examples=15, deadline=None)
def test_records_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, first: list, later: list) -> None:
    file = tmp_path_factory.mktemp("records") / "records.jsonl"
    write_records(file, first)
    for record in later:
        append_record(file, record)
    assert repr(read(file)) == repr([*first, *later])
    lines = file.read_text().splitlines()
    assert [set(json.loads(line)) - {"crc32"} for line in lines] == [set(r) - {"crc32"} for r in (*first, *later)]


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    write_records(file, [{"a": 1}, {"b": "line\nbreak"}])
    whole = file.read_bytes()
    append_record(file, {"c": [1, 2, 3]})
    longer = file.read_bytes()
    for length in range(len(whole), len(longer)):
        file.write_bytes(longer[:length])
        records = read_records(file, "records", 1)
        assert (records.values, records.length) == ([{"a": 1}, {"b": "line\nbreak"}], len(whole))
        assert records.is_whole


def test_one_bit_that_is_wrong_changes_no_record_that_is_believed(tmp_path: Path) -> None:
    """A line whose checksum has lost its name counts as one written by hand; its record is whole all the same."""
    file, records = tmp_path / "records.jsonl", [{"a": 1.5}, {"b": "text"}, {"c": None}]
    write_records(file, records)
    whole = file.read_bytes()
    begin, end = (len(b"\n".join(whole.split(b"\n")[:count])) + 1 for count in (1, 2))
    for at in range(begin, end):
        for bit in range(8):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
            values = read(file)
            assert len(values) in (1, 3)
            assert all(
                value[key] == record[key] for value, record in zip(values, records, strict=False) for key in record
            )


def test_a_line_by_hand_needs_no_checksum(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"a": 1}\n{"b": 2}\n')
    append_record(file, {"c": 3})
    assert read(file) == [{"a": 1}, {"b": 2}, {"c": 3}]
    file.write_text('{"a": 1}\nnonsense\n{"c": 3}\n')
    found = read_records(file, "records", 1)
    assert (found.values, found.is_whole) == ([{"a": 1}], False)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "records.jsonl").open("wb") as stream:
        stream.truncate(2 << 20)
    with pytest.raises(ReadError, match="larger than 1 MiB"):
        read(tmp_path / "records.jsonl")


def test_nothing_is_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="link"):
        append_record(tmp_path / "link", {"a": 1})
    assert (tmp_path / "precious").read_text() == "years of work"


APPENDS = """
import sys
from pathlib import Path
from somareg.io.records import append_record
for number in range(int(sys.argv[3])):
    append_record(Path(sys.argv[1]), {"by": sys.argv[2], "number": number, "text": "x" * 20_000})
    print(number, flush=True)
"""


def append_many(file: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", APPENDS, str(file), name, str(count)], stdout=subprocess.PIPE)


def test_two_processes_do_not_spoil_each_others_records(tmp_path: Path) -> None:
    file, count = tmp_path / "records.jsonl", 40
    with append_many(file, "a", count) as one, append_many(file, "b", count) as other:
        assert one.wait() == other.wait() == 0
    records = read_records(file, "records", 10)
    assert records.is_whole
    for name in "ab":
        assert [record["number"] for record in records.values if record["by"] == name] == list(range(count))


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_what_a_killed_process_has_appended_is_there(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    with append_many(file, "a", 100_000) as writer:
        assert writer.stdout is not None
        last = [int(writer.stdout.readline()) for _ in range(5)][-1]
        writer.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in writer.stdout.read().splitlines())])
    numbers = [record["number"] for record in read_records(file, "records", 1024).values]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > last
