"""What a worker has told outlives it, and the next one counts on; no sum ever falls."""

from pathlib import Path

from service.fleet import exposition, ledger
from service.fleet.ledger import Ledger


def said(count: int, waiting: int = 0) -> str:
    return f"# TYPE n_total counter\nn_total {count}\n# TYPE waiting gauge\nwaiting {waiting}\n"


def test_the_next_of_its_name_counts_on(tmp_path: Path) -> None:
    first = Ledger(tmp_path, "1")
    assert "n_total 5.0" in first.tell(said(5, 3))
    assert ledger.told(tmp_path, "1") == "# TYPE n_total counter\nn_total 5.0\n"
    second = Ledger(tmp_path, "1")
    assert "n_total 5.0" in exposition.merged([ledger.told(tmp_path, "1")])  # it has told nothing yet
    assert "waiting 1.0" in second.tell(said(0, 1))
    assert "n_total 7.0" in second.tell(said(2, 1))
    assert "n_total 8.0" in Ledger(tmp_path, "1").tell(said(1))
    assert ledger.told(tmp_path, "2") == ""


def test_a_disk_that_fails_fails_no_scrape(tmp_path: Path) -> None:
    one = Ledger(tmp_path / "absent", "1")
    assert "n_total 5.0" in one.tell(said(5))
