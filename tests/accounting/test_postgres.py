"""The contracts over PostgreSQL, and what is PostgreSQL's alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpsynth_accounting import Budget, InvalidRequest, Ledger, LedgerError
from tests.accounting.contract_ledger import UNTOUCHED, LedgerContract, answered, reserve
from tests.accounting.contract_race import RaceContract
from tests.accounting.postgres import PostgresSite, server


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with server() as found:
        yield found


@pytest.fixture
def site(address: str, tmp_path: Path) -> Iterator[PostgresSite]:
    found = PostgresSite(address, tmp_path)
    yield found
    found.close()


class TestPostgres(LedgerContract):
    @pytest.fixture
    def site(self, site: PostgresSite) -> PostgresSite:
        return site


class TestPostgresRace(RaceContract):
    SMALLER = 60, 6

    @pytest.fixture
    def site(self, site: PostgresSite) -> PostgresSite:
        return site


def test_the_secret_is_a_file_that_is_named(address: str) -> None:
    with pytest.raises(InvalidRequest, match="Give secret="):
        Ledger(address.format("postgres"))


def test_a_missing_secret_is_not_drawn_anew(site: PostgresSite) -> None:
    site.open()
    site.secret.unlink()
    with pytest.raises(LedgerError, match="Restore"):
        site.open()
    assert not site.secret.exists()


@pytest.mark.parametrize("url", ["postgresql:", "postgresql+psycopg://h:port/x", "postgresql://"])
def test_an_address_that_leads_nowhere_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidRequest, LedgerError)) as refused:
        Ledger(f"{url}?host={tmp_path}" if url.endswith("//") else url, secret=tmp_path / "s")
    assert UNTOUCHED in str(refused.value)


def test_no_text_shows_a_password(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://ada:hunter2@/none?host={tmp_path}"
    with pytest.raises(LedgerError, match="ada") as refused:
        Ledger(url, secret=tmp_path / "secret")
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in str(refused.value.__cause__)


def test_without_sqlalchemy_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(InvalidRequest, match=r"dpsynth\[postgres\]"):
        Ledger("postgresql://host/db", secret=tmp_path / "secret")


def test_a_foreign_database_is_refused_and_left_as_it_was(site: PostgresSite) -> None:
    site.run("CREATE TABLE meta(name TEXT)")
    with pytest.raises(LedgerError, match="something else"):
        site.open()
    assert not site.secret.exists()
    site.run("DROP TABLE meta")
    site.open()


def test_a_server_that_forgets_is_refused(site: PostgresSite) -> None:
    def fsync(state: str) -> None:
        site.run(f"ALTER SYSTEM SET fsync = {state}")
        site.run("SELECT pg_reload_conf()")

    def open_for_a_while() -> None:
        for _ in range(100):  # the server reads its settings in its own time
            site.open()

    fsync("off")
    try:
        with pytest.raises(LedgerError, match="fsync"):
            open_for_a_while()
    finally:
        fsync("on")


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "team-ledger.md"


def test_a_role_with_few_rights_can_spend_and_cannot_rewrite(site: PostgresSite) -> None:
    """The rights are those that the page for teams gives."""
    site.open()
    team = f"team_{site.schema}"
    grants = PAGE.read_text(encoding="utf-8").partition("```sql")[2].partition("```")[0]
    for grant in re.sub(r"\bteam\b", team, grants).strip().split("\n"):
        site.run(grant)
    site.run(f"GRANT USAGE ON SCHEMA {site.schema} TO {team}")
    owner = site.address
    site.address = owner.replace("tester@", f"{team}@")
    account = site.open().account("patients", Budget(1, 1e-6))
    answered(account)
    assert reserve(account).void()
    account.ledger.put_sketch("patients", "visits", b"x")
    assert account.ledger.verify("patients") == []
    for statement in (
        "DELETE FROM entries",
        "UPDATE entries SET hash='0'",
        "UPDATE meta SET value='0'",
        "ALTER TABLE entries DISABLE TRIGGER USER",
    ):
        with pytest.raises(Exception, match=r"permission denied|must be owner"):
            site.run(statement)


def drop_connections(site: PostgresSite) -> None:
    site.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid<>pg_backend_pid()")


def test_a_connection_that_the_server_dropped_is_opened_again(site: PostgresSite) -> None:
    account = site.open().account("patients", Budget(1, 1e-6))
    drop_connections(site)
    reserve(account)
    assert account.ledger.verify("patients") == []


def test_a_charge_that_was_not_confirmed_is_not_called_unspent(
    site: PostgresSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = site.open().account("patients", Budget(1, 1e-6))
    append = Ledger._append

    def cut(self: Ledger, *arguments: Any) -> object:
        found = append(self, *arguments)
        drop_connections(site)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_append", cut)
        with pytest.raises(LedgerError, match="may have landed") as refused:
            reserve(account)
    assert refused.value.touched
    assert account.remaining()[0] == 1
    reserve(account)
    assert account.ledger.verify("patients") == []


def test_no_error_quotes_a_value(site: PostgresSite) -> None:
    account = site.open().account("patients", Budget(1, 1e-6))
    paid = reserve(account)
    paid.begin(0, "q")
    site.run("ALTER TABLE answers ADD CHECK (length(value) < 5)")
    with pytest.raises(LedgerError, match="check constraint") as refused:
        paid.store(0, 0, "q", b"Ada Lovelace")
    assert refused.value.touched
    assert "Ada" not in str(refused.value)
    assert account.ledger.verify("patients") == []
