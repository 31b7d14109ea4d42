"""`mezzo usage`, `mezzo usage compare` and `mezzo invoices`: what they show and what they refuse."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from mezzo.store.database import Database
from mezzo.store.tables import workspaces
from tests.cli.conftest import Run
from tests.databases import new_sqlite
from tests.metering.reading import text_of_pdf
from tests.metering.rows import MODEL, add_key, add_organization, add_records, record, set_up

ORGANIZATION = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
HOSTILE = "[bold]=1+1\x1b[31m"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of books with one organisation, two workspaces, and some use in September and October."""
    url = new_sqlite(tmp_path_factory.mktemp("books"))
    database = Database(url)
    set_up(database)
    add_organization(database, "w1", "w2", organization_id=ORGANIZATION)
    add_key(database, ORGANIZATION, "w1", "k1", HOSTILE)
    with database.write() as connection:
        connection.execute(sa.update(workspaces).where(workspaces.c.id == "w1").values(name=HOSTILE))
    add_records(
        database,
        [
            record(ORGANIZATION, "w1", "2026-09-01 12:00:00+00:00", api_key_id="k1"),
            record(ORGANIZATION, "w2", "2026-09-01 23:00:00+00:00"),
            record(ORGANIZATION, "w2", "2026-09-02 12:00:00+00:00", service_tier="batch"),
            record(ORGANIZATION, "w2", "2026-09-02 13:00:00+00:00", status="failed"),
            record(ORGANIZATION, "w1", "2026-10-01 00:00:00+00:00"),
        ],
    )
    database.dispose()
    return url


class TestUsage:
    def test_a_table_for_people_in_80_columns(self, mezzo: Run, url: str) -> None:
        done = mezzo("usage", "--month", "2026-09", MEZZO_DATABASE_URL=url, COLUMNS="80")
        assert (done.returncode, done.stderr) == (0, "")
        lines = [line.split() for line in done.stdout.splitlines()]
        # 900 * 400 + 100 * 40 + 50 * 2,000 = 464,000 nano-dollars a request, and half of it for one in a batch
        assert lines == [
            ["DAY", "MODEL", "REQUESTS", "INPUT", "CACHED", "OUTPUT", "USD"],
            ["2026-09-01", MODEL, "2", "1,800", "200", "100", "0.000928000"],
            ["2026-09-02", MODEL, "2", "900", "100", "50", "0.000232000"],
            ["TOTAL", "4", "2,700", "300", "150", "0.001160000"],
        ]

    def test_names_are_shown_as_they_are(self, call: Run, url: str) -> None:
        done = call(
            "usage", "--month", "2026-09", "--by", "workspace,key", MEZZO_DATABASE_URL=url, COLUMNS="200"
        )
        assert "[bold]=1+1[U+001B][31m (w1)" in done.stdout
        assert "[bold]=1+1[U+001B][31m (k1)" in done.stdout
        assert "Name of w2 (w2)" in done.stdout

    def test_csv_has_ids_and_no_names(self, call: Run, url: str) -> None:
        done = call(
            *("usage", "--from", "2026-09-01", "--to", "2026-09-02", "--zone", "Europe/Paris"),
            *("--by", "tier,workspace", "--format", "csv"),
            MEZZO_DATABASE_URL=url,
        )
        rows = list(csv.DictReader(done.stdout.splitlines()))
        # 23:00 in UTC is 01:00 on the next day in Paris.
        assert [(row["workspace_id"], row["service_tier"], row["amount"]) for row in rows] == [
            ("w1", "standard", "0.000464000")
        ]
        assert "bold" not in done.stdout

    def test_json_has_the_period_and_every_sum(self, call: Run, url: str) -> None:
        done = call(
            *("usage", "--month", "2026-09", "--workspace", "w2", "--by", "day", "--format", "json"),
            MEZZO_DATABASE_URL=url,
        )
        document = json.loads(done.stdout)
        assert (document["from"], document["to"]) == ("2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z")
        assert (document["organization_id"], document["currency"], document["time_zone"]) == (
            ORGANIZATION,
            "USD",
            "UTC",
        )
        first, second = document["rows"]
        assert (first["day"], first["num_finished"], first["amount"]) == ("2026-09-01", 1, "0.000464000")
        assert (second["num_finished"], second["num_failed"], second["input_tokens"]) == (1, 1, 900)

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (("usage", "--by", "user"), "--by: 'user' is not one of day, workspace, key, model, tier, price"),
            (("usage", "--month", "2026-9"), "'2026-9' is not a month such as 2026-09"),
            (("usage", "--from", "2026-09-01"), "--from and --to belong together"),
            (("usage", "--zone", "Mars"), "--zone: 'Mars' is not a time zone"),
            (("usage", "--organization", "x"), "--organization: there is no organization 'x'"),
            (("usage", "--month", "2026-09", "compare"), "write options after `compare`"),
            (("usage", "compare", "--input", "1", "--month", "2026-09"), "--month: the tokens are given"),
            (("usage", "compare", "--input", "1", "--model", "x"), "--model: x has no standard price"),
            (("invoices", "2026-09", "--output", "a.txt"), "--output: a.txt does not say its format"),
            (("invoices", "2026-09", "--font", "a.ttf"), "--font: only a PDF has a font in it"),
            (("invoices", "2999-01"), "2999-01 has not begun"),
        ],
    )
    def test_a_wrong_call_exits_with_2_and_says_why(
        self, call: Run, url: str, args: tuple[str, ...], said: str
    ) -> None:
        done = call(*args, MEZZO_DATABASE_URL=url)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"error: {said}" in done.stderr

    def test_books_that_are_empty_say_so(self, call: Run) -> None:
        done = call("usage")
        assert done.returncode == 1
        assert "error: nothing is in the books yet" in done.stderr


class TestCompare:
    def test_given_tokens_need_no_books(self, call: Run) -> None:
        done = call("usage", "compare", "--input", "3000000", "--output", "1000000", "--format", "json")
        document = json.loads(done.stdout)
        assert document["baseline"]["amount"] == "3.20"
        sonnet = next(row for row in document["comparisons"] if row["model"] == "Claude Sonnet 3.7")
        assert {name: sonnet[name] for name in ("amount", "ratio", "lowest_ratio", "highest_ratio")} == {
            "amount": "24.00",
            "ratio": "7.5",
            "lowest_ratio": "7.5",
            "highest_ratio": "7.5",
        }

    def test_a_month_beside_what_it_was_billed(self, call: Run, url: str) -> None:
        done = call("usage", "compare", "--month", "2026-09", MEZZO_DATABASE_URL=url, COLUMNS="80")
        assert done.stdout.startswith("2,700 input, 300 cached input and 150 output tokens\n")
        lines = {line[:20].strip(): line[20:].split() for line in done.stdout.splitlines()}
        assert lines["billed here"][:2] == ["0.00116", "1"]
        # 2,700 * 3.00 + 300 * 0.30 + 150 * 15.00 = 10,440 millionths, nine times as much: a third of it was batch
        assert lines["Claude Sonnet 3.7"][:2] == ["0.01044", "9"]


class TestInvoices:
    def test_the_same_bytes_each_time_and_as_pdf(self, call: Run, url: str, tmp_path: Path) -> None:
        first = call("invoices", "2026-09", "--format", "csv", MEZZO_DATABASE_URL=url)
        second = call("invoices", "2026-09", "--output", "a.csv", MEZZO_DATABASE_URL=url)
        assert (first.returncode, first.stderr, second.stderr) == (0, "", "wrote a.csv\n")
        assert first.stdout.splitlines()[-1] == "7C9E6679-2026-09,final,total,,,,,,,,0.001160000,USD"
        assert (tmp_path / "a.csv").read_text() == first.stdout
        call("invoices", "2026-09", "--output", "a.pdf", MEZZO_DATABASE_URL=url)
        text = text_of_pdf((tmp_path / "a.pdf").read_bytes())
        assert "exactly USD 0.001160000" in text

    def test_the_running_month_is_provisional(self, call: Run, url: str) -> None:
        month = datetime.now(UTC).strftime("%Y-%m")
        done = call("invoices", month, MEZZO_DATABASE_URL=url)
        assert json.loads(done.stdout)["status"] == "provisional"
        assert done.stderr.startswith("provisional: the month ")
