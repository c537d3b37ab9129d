from benchmarks.profiles import Cost, costs

COLLAPSED = """\
main (app.py:1);serve (server.py:2);encode (json.py:3) 4
main (app.py:1);serve (server.py:5);encode (json.py:7) 2
main (app.py:1);serve (server.py:2) 3
main (app.py:1);walk (tree.py:4);walk (tree.py:5) 1
"""


def test_a_function_costs_alone_and_with_what_it_calls() -> None:
    assert costs(COLLAPSED) == [
        Cost("encode (json.py)", 0.6, 0.6),
        Cost("serve (server.py)", 0.3, 0.9),
        Cost("walk (tree.py)", 0.1, 0.1),
        Cost("main (app.py)", 0.0, 1.0),
    ]


def test_a_process_that_did_nothing_has_no_costs() -> None:
    assert costs("") == []
