"""What passed is counted by what it proves, and the page says so."""

import json
from pathlib import Path

import pytest

from support import script

pytest_plugins = ("pytester",)

ROOT = Path(__file__).resolve().parents[3]


promises = script("benchmarks/promises.py")
page = script("docs/promises.py")

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="one"><properties>
<property name="promise" value="R1"/><property name="kind" value="kill"/>
<property name="times" value="3"/><property name="seconds" value="3.5"/></properties>
</testcase>
<testcase classname="tests.a" name="two"><properties>
<property name="promise" value="R1"/><property name="kind" value="kill"/>
<property name="seconds" value="2.5"/></properties>
<failure message="no"/></testcase>
<testcase classname="tests.a" name="three"><properties>
<property name="promise" value="R1"/><property name="kind" value="kill"/></properties>
<skipped message="no disk"/></testcase>
<testcase classname="tests.a" name="four"><properties>
<property name="promise" value="R1"/><property name="kind" value="control"/></properties>
</testcase>
<testcase classname="tests.a" name="five"/>
<testcase classname="tests.a" name="six"><properties><property name="promise" value="R2"/></properties>
<failure message="before it said what kind of trial it is"/></testcase>
</testsuite></testsuites>"""


def test_trials_are_counted_by_promise_and_kind(tmp_path: Path):
    (tmp_path / "report.xml").write_text(REPORT)
    counts = promises.counted(list(promises.results(tmp_path / "report.xml")))
    early = {"what failed before it was said": {"trials": 1, "passed": 0}}
    assert counts == {
        "R1": {"kill": {"trials": 4, "passed": 3, "seconds": 3.5}, "control": {"trials": 1, "passed": 1}},
        "R2": early,
    }


def test_a_trial_that_passes_has_a_kind(tmp_path: Path):
    failure = '<failure message="before it said what kind of trial it is"/>'
    (tmp_path / "report.xml").write_text(REPORT.replace(failure, ""))
    with pytest.raises(ValueError, match="six records"):
        list(promises.results(tmp_path / "report.xml"))


def test_a_mark_reaches_the_report(pytester: pytest.Pytester):
    conftest = Path(__file__).parents[2] / "conftest.py"
    pytester.makeconftest(conftest.read_text())
    pytester.makeini("[pytest]\nmarkers =\n  promise(number, kind): ...\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.promise("R4", "signal")
        def test_it(record_property):
            record_property("times", 2)

        def test_of_its_own(record_property):
            record_property("promise", "R9")
            record_property("kind", "file")
        """
    )
    pytester.runpytest_inprocess(*promises.WITH_PROPERTIES, "--junitxml=report.xml").assert_outcomes(passed=2)
    expected = [("R4: signal", 2, True, None), ("R9: file", 1, True, None)]
    assert list(promises.results(pytester.path / "report.xml")) == expected


def test_every_mark_names_a_promise_of_the_page(request: pytest.FixtureRequest):
    named = {mark.args[0] for item in request.session.items for mark in item.iter_markers("promise") if mark.args}
    assert named <= page.PROMISES.keys()


def test_the_page_counts_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    machine = {"processor": "A processor", "cores": 2, "commit": "abc"}
    row = {"kill": {"trials": 1200, "passed": 1199}, "control": {"trials": 2, "passed": 2}}
    promised = {"R1": row, "R2": {"slow": {"trials": 1, "passed": 1, "seconds": 2.26}}}
    (tmp_path / "counts.json").write_text(json.dumps({"promises": promised, "minutes": 61.2, "machine": machine}))
    monkeypatch.setattr(page, "COUNTS", tmp_path / "counts.json")
    told = page.page()
    assert "took 61 minutes on A processor, 2 cores, at commit abc" in told
    assert "| **1 of 1** slow (at most 2.3 s of the processor) | none |" in told
    assert "| **1,199 of 1,200** kill | 2 |" in told
    assert "| not yet run |" in told  # the others


def test_what_stands_in_the_docs_is_a_whole_run_in_which_all_passed():
    """The least numbers of trials are those that were asked for when the promises were made."""
    told = json.loads(promises.RESULTS.read_text())["promises"]
    assert {number for number in page.PROMISES if number not in told} == {"R12", "R13"}, "these have proofs of their own"
    for kinds in told.values():
        assert all(row["passed"] == row["trials"] > 0 for row in kinds.values())
        assert "control" in kinds
    least = {("R1", "SIGKILL"): 200, ("R4", "signal"): 40, ("R5", "SIGKILL"): 100, ("R6", "damage"): 6, ("R9", "hostile"): 1000,
             ("R10", "bad input"): 60, ("R11", "bad config"): 40, ("R14", "planted fault"): 8, ("R14", "healthy run"): 10,
             ("R15", "planted leak"): 5}  # fmt: skip
    for (number, start), count in least.items():
        assert sum(row["trials"] for kind, row in told[number].items() if kind.startswith(start)) >= count, number
    assert told["R11"]["bad config, from the shell"]["seconds"] > 0
