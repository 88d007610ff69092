"""The table of planted faults fits the library of today; running it is for `tests/tools/planted_faults.py`."""

from planted_faults import FAULTS, ROOT, misplaced, place_of


def test_the_table_of_planted_faults_is_current():
    assert misplaced([(line, fault, tests) for line, (fault, tests) in FAULTS.items()]) == []
    covered = {place_of(ROOT, line).relative_to(ROOT).parts[1] for line in FAULTS}
    assert {path.parent.name for path in (ROOT / "fsslib").glob("*/__init__.py")} <= covered
