"""What an endpoint may be registered with."""

import pytest

from services.kit.errors import FieldChecks
from services.notifier.endpoint_checks import (
    check_description,
    check_event_types,
    check_headers,
    check_rate_limit,
    url_problem,
)
from services.notifier.filters import EVENT_TYPES

GOOD_URLS = [
    "https://example.com",
    "https://example.com/hooks?tenant=1",
    "https://example.com:8443/hooks",
    "https://bücher.example/hooks",
    "https://1.1.1.1/hooks",
    "https://[2606:4700:4700::1111]/hooks",
    "https://example.com/" + "x" * 2_028,
    "https://example.com/a@b",
]
BAD_URLS = [
    ("", "required"),
    ("example.com", "must begin with https://"),
    ("/hooks", "must begin with https://"),
    ("ftp://example.com", "must begin with https://"),
    ("http://example.com", "must begin with https://"),
    ("javascript:alert(1)", "must begin with https://"),
    ("https://", "must"),
    ("https:///hooks", "must"),
    ("https://example.com:0/", "must"),
    ("https://example.com:99999/", "must be a URL"),
    ("https://[::1", "must be a URL"),
    ("https://user:secret@example.com/", "user or password"),
    ("https://user@example.com/", "user or password"),
    ("https://@example.com/", "user or password"),
    ("https://example.com/#part", "no fragment"),
    ("https://example.com/#", "no fragment"),
    ("https://example.com/a b", "no spaces"),
    ("https://example.com/\r\nhost: other", "no spaces"),
    ("https://example.com\\@10.0.0.1/", "backslashes"),
    ("https://example.com/\x00", "control characters"),
    ("https://example.com/" + "x" * 2_029, "at most 2048"),
    ("https://localhost/", "public address"),
    ("https://127.0.0.1/", "public address"),
    ("https://[::1]/", "public address"),
    ("https://[::ffff:10.0.0.1]/", "public address"),
    ("https://169.254.169.254/latest/meta-data", "public address"),
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_public_https_url_is_taken(url: str) -> None:
    assert url_problem(url, allow_private=False) == ""


@pytest.mark.parametrize(("url", "problem"), BAD_URLS)
def test_any_other_url_is_refused_with_the_reason(url: str, problem: str) -> None:
    assert problem in url_problem(url, allow_private=False)


@pytest.mark.parametrize("url", ["http://localhost:3000/hooks", "http://127.0.0.1:1/", *GOOD_URLS])
def test_an_operator_may_allow_http_and_private_addresses(url: str) -> None:
    assert url_problem(url, allow_private=True) == ""


@pytest.mark.parametrize("url", ["ftp://localhost/", "http://a@localhost/", "http://localhost/#a"])
def test_what_is_no_webhook_url_stays_refused(url: str) -> None:
    assert url_problem(url, allow_private=True)


def test_event_types_are_known_ones_or_patterns_of_known_ones() -> None:
    checks = FieldChecks()
    check_event_types(checks, [])
    check_event_types(checks, [*EVENT_TYPES, "invoice.*", "*"])
    assert checks.problems == []
    check_event_types(checks, ["invoice.crated"])
    (problem,) = checks.problems
    assert problem.field == "events"
    assert all(event_type in problem.message for event_type in EVENT_TYPES)
    check_event_types(checks, ["*"] * 51)
    assert len(checks.problems) == 2


def test_a_description_is_short_and_printable() -> None:
    checks = FieldChecks()
    check_description(checks, "line\nline")
    assert checks.problems == []
    check_description(checks, "x" * 501)
    check_description(checks, "\x00")
    assert [problem.field for problem in checks.problems] == ["description"] * 2


@pytest.mark.parametrize(
    ("rate_limit", "fine"), [(0, True), (1, True), (1_000, True), (-1, False), (1_001, False)]
)
def test_a_rate_limit_is_from_1_to_1000_a_second(rate_limit: int, fine: bool) -> None:
    checks = FieldChecks()
    check_rate_limit(checks, rate_limit)
    assert bool(checks.problems) is not fine


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X_Env", "traceparent"])
def test_headers_of_one_s_own_are_taken(name: str) -> None:
    checks = FieldChecks()
    check_headers(checks, {name: "Bearer a b", "other": "x"})
    assert checks.problems == []


DENIED = [
    "Host", "content-length", "Content-Type", "Transfer-Encoding", "Connection", "webhook-id",
    "Webhook-Signature", "svix-id", "cookie", "User-Agent", "proxy-connection",
    "X-Forwarded-For",
    "X-aws-ec2-metadata-token", "Metadata-Flavor", "Metadata", "X-Google-Metadata-Request",
    "Accept-Encoding", "Expect", "sec-fetch-mode", "x-usageflow-api-key", "X-HTTP-Method-Override",
]  # fmt: skip


@pytest.mark.parametrize("name", DENIED)
def test_headers_that_are_ours_or_open_doors_are_refused(name: str) -> None:
    checks = FieldChecks()
    check_headers(checks, {name: "x"})
    assert [problem.field for problem in checks.problems] == [f"headers[{name}]"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("a b", "x"),
        ("a:b", "x"),
        ("é", "x"),
        ("a" * 101, "x"),
        ("a", ""),
        ("a", " x"),
        ("a", "x\r\nhost: y"),
        ("a", "x\x00"),
        ("a", "é"),
        ("a", "x" * 1_001),
    ],
)
def test_what_is_no_header_is_refused(name: str, value: str) -> None:
    checks = FieldChecks()
    check_headers(checks, {name: value})
    assert len(checks.problems) == 1


def test_headers_are_bounded_and_named_once() -> None:
    checks = FieldChecks()
    check_headers(checks, {f"x-{number}": "x" for number in range(21)})
    check_headers(checks, {"x-a": "1", "X-A": "2"})
    assert [problem.field for problem in checks.problems] == ["headers", "headers"]
