from benchmarks.machine import cpu_model, describe, output


def test_the_processor_is_named() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: Example CPU @ 3GHz\n") == "Example CPU @ 3GHz"
    assert cpu_model("") == "unknown"


def test_a_missing_program_is_unknown() -> None:
    assert output("no-such-program-here", "--version") == "unknown"


def test_the_description_says_what_figures_depend_on() -> None:
    machine = describe(quick=True)
    assert machine["quick"] is True
    assert "PostgreSQL" in str(machine["postgres"])
    assert isinstance(machine["cores"], int)
