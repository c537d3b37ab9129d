"""From a file to its batches and its report, and where they go."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.importing.batches import BATCH_BYTES_MAX, Batch, batches
from cli.importing.dry_run import DryRun, event_problems
from cli.importing.errors import ImportStoppedError
from cli.importing.keys import DerivedKeys
from cli.importing.lines import Line, ndjson_lines
from cli.importing.outcome import column_map, report_path
from cli.importing.read_ahead import read_ahead
from cli.importing.report import REASONS_MAX, Report
from cli.importing.sender import Answer, Result
from cli.importing.source import Source, opened
from cli.importing.target import find_target


def batches_of(path: Path, lines_max: int = 1_000) -> list[Batch]:
    with opened(str(path)) as source:
        return list(_batches(source, lines_max))


def _batches(source: Source, lines_max: int = 1_000) -> Iterator[Batch]:
    return batches(ndjson_lines(source.stream), DerivedKeys(""), source, lines_max)


def test_a_batch_is_bounded_in_lines_and_bytes(tmp_path: Path) -> None:
    many = tmp_path / "many.ndjson"
    many.write_bytes(b'{"metric":"A"}\nnonsense\n' * 25)
    sizes = [(len(batch.lines), len(batch.refused)) for batch in batches_of(many, 20)]
    assert sizes == [(10, 10), (10, 10), (5, 5)]
    for content in (b'{"metric":"%b"}\n', b"nonsense %b\n"):
        many.write_bytes((content % (b"x" * 100_000)) * 30)
        found = batches_of(many)
        assert sum(len(batch.lines) + len(batch.refused) for batch in found) == 30
        assert max(batch.size_bytes for batch in found) < BATCH_BYTES_MAX + 101_000


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz"])
def test_a_batch_knows_how_far_the_file_was_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = b'{"metric":"A"}\n' * 30
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    positions = [batch.position_bytes for batch in batches_of(path, 10)]
    assert positions == sorted(positions)
    assert positions[-1] == path.stat().st_size


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImportStoppedError, match="No such file"):
        batches_of(tmp_path / "missing.ndjson")


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b'{"a":1}\n' * 9_000)[:-20]])
async def test_a_broken_file_stops_the_import_after_what_could_be_read(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.ndjson.gz"
    path.write_bytes(content)
    with opened(str(path)) as source:
        with pytest.raises(ImportStoppedError, match="can't be read on"):
            async for batch in read_ahead(_batches(source)):
                assert batch.lines


def test_a_report_is_there_only_when_a_line_was_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("of an earlier run")
    report = Report(path)
    taken = Answer(1, 1, 0, 0, [Result(0, "ACCEPTED"), Result(1, "DUPLICATE")])
    report.add(Batch([Line(1, b"{}"), Line(2, b"{}")]), taken)
    assert not path.exists()
    report.add(Batch(refused=[Line(3, b"\xff", problem="is no JSON object")]), None)
    report.close()
    assert path.read_text() == (
        '{"line":3,"status":"REJECTED","error":"is no JSON object","event":"\ufffd"}\n'
    )
    assert (report.totals.lines, report.totals.not_taken) == (3, 1)


def test_reasons_are_bounded(tmp_path: Path) -> None:
    report = Report(tmp_path / "report")
    refused = [Line(n, b"", problem=f"reason {n}") for n in range(2 * REASONS_MAX)]
    report.add(Batch(refused=refused), None)
    report.close()
    assert len(report.totals.reasons) == REASONS_MAX + 1
    assert report.totals.reasons["other reasons"] == REASONS_MAX


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (b'{"metric":"A","amount":1}', ""),
        (b'{"metric":"A","amount":"0.5","metadata":{"a":"b"}}', ""),
        (b"{}", "metric: is required; amount: is required"),
        (b'{"metric":"A","amount":1,"customer_id":"c"}', "did you mean customerId?"),
        (b'{"metric":1,"amount":1}', "metric: must be a string"),
        (b'{"metric":"A","amount":-1}', "amount: must be at least 0"),
        (b'{"metric":"A","amount":1,"timestamp":"yesterday"}', "timestamp: must be"),
        (b'{"metric":"A","amount":1,"timestamp":"2001-01-01T00:00:00Z"}', "from 400 days ago"),
        (b'{"metric":"A","amount":1,"metadata":{"a":[]}}', "metadata: "),
    ],
)
def test_a_dry_run_tells_what_is_wrong_with_an_event(event: bytes, told: str) -> None:
    found = "; ".join(event_problems(event))
    assert told in found
    assert bool(told) == bool(found)


async def test_a_dry_run_answers_as_the_gateway_does() -> None:
    lines = [Line(1, b'{"metric":"A","amount":1}'), Line(2, b'{"metric":"A"}')]
    answer = await DryRun().send(Batch(lines))
    assert (answer.accepted, answer.rejected) == (1, 1)
    assert [result.status for result in answer.results] == ["ACCEPTED", "REJECTED"]


def test_the_file_itself_is_never_the_report(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text("{}")
    with pytest.raises(ImportStoppedError, match="is the file"):
        report_path(str(path), path)
    assert report_path(str(path), None) == tmp_path / "a.ndjson.rejected.ndjson"


def test_column_maps_are_pairs() -> None:
    assert column_map(["a=metric", "b ="]) == {"a": "metric", "b": ""}
    for wrong in ("a", "=metric"):
        with pytest.raises(ImportStoppedError, match="COLUMN=FIELD"):
            column_map([wrong])


def test_the_stack_s_own_key_goes_to_the_stack_only(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text(
        '{"http": "http://127.0.0.1:1", "grpc": {}, "nats": "", "databases": {},'
        ' "api_key": "own", "pids": {}, "supervisor_pid": 1}'
    )
    own = find_target(None, None, tmp_path, {}, compress=None)
    assert (own.url, own.api_key, own.is_here) == ("http://127.0.0.1:1", "own", True)
    assert not own.compress
    with pytest.raises(ImportStoppedError, match="no API key"):
        find_target("https://usage.example.com", None, tmp_path, {}, compress=None)
    environ = {"USAGEFLOW_API_KEY": "mine"}
    other = find_target("https://usage.example.com", None, tmp_path, environ, compress=None)
    assert (other.api_key, other.is_here, other.compress) == ("mine", False, True)
    assert find_target(None, None, tmp_path, environ, compress=None).api_key == "mine"


@pytest.mark.parametrize(
    "url", ["usage.example.com", "ftp://a", "http://", "http://[", "file:///a"]
)
def test_what_is_no_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ImportStoppedError, match="must be a URL"):
        find_target(url, None, tmp_path, {"USAGEFLOW_API_KEY": "k"}, compress=None)


def test_without_a_stack_a_url_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ImportStoppedError, match="--url"):
        find_target(None, None, tmp_path, {}, compress=None)
