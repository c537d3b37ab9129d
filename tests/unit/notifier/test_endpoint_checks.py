"""What an endpoint may be registered with."""

import pytest

from services.kit.errors import InvalidArgumentError
from services.notifier.domain import EVENT_TYPES, check_endpoint, url_problem

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


def test_all_that_is_wrong_is_told_at_once_and_names_the_fields_of_the_api() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        check_endpoint("http://x", ["invoice.crated"], "x" * 501, allow_private=False)
    problems = {problem.field: problem.message for problem in refused.value.problems}
    assert set(problems) == {"url", "events", "description"}
    assert all(event_type in problems["events"] for event_type in EVENT_TYPES)


def test_no_event_types_mean_all_and_each_known_one_is_taken() -> None:
    check_endpoint("https://example.com", [], "", allow_private=False)
    check_endpoint("https://example.com", EVENT_TYPES, "line\nline", allow_private=False)
    with pytest.raises(InvalidArgumentError):
        check_endpoint("https://example.com", [], "\x00", allow_private=False)
