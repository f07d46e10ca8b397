from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from dpsynth_accounting import (
    Account,
    ApproxDP,
    Budget,
    Filter,
    InvalidRequest,
    Ledger,
    Policy,
    _signing,
    canonical,
    public_hex,
    verify_extract,
)
from dpsynth_accounting.budget import ADJACENCY
from dpsynth_accounting.extract import GENESIS, chain_hash

BUDGET = Budget(1, 1e-6)
UNIT = {"unit": "row"}
PLAN = ApproxDP(Fraction(0), Fraction(0))
UNTOUCHED = "No private row was read and nothing was spent."
MANIFEST = "ab" * 32


def account(folder: Path, **rules: Any) -> Account:
    return Ledger(folder / "ledger.db").account("patients", Policy(BUDGET, **rules))


def reserve(of: Account, epsilon: Any = 0.1, **more: Any) -> object:
    return of.reserve(PLAN, epsilon, 1e-8, unit=UNIT, label="a test", **more)


def key(folder: Path, name: str) -> Path:
    """Write a key pair as PEM files, as openssl does; return the private one's."""
    pair, path = Ed25519PrivateKey.generate(), folder / f"{name}.pem"
    path.write_bytes(pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


# -- what a policy is --------------------------------------------------------------------------


FULL = {
    "filter": Filter("zcdp"),
    "unit": {"unit": "person", "rows": 2},
    "per_release": "1/3",
    "expires": date(2030, 2, 28),
    "preparers": ("ada", "bo"),
    "approvers": {"grace": "0f" * 32, "hal": None},
}


@pytest.mark.parametrize("rules", [{}, FULL, *({name: FULL[name]} for name in FULL)])
def test_a_policy_survives_its_json(rules: dict[str, Any]) -> None:
    policy = Policy(BUDGET, **rules)
    again = Policy.from_json(json.loads(json.dumps(policy.to_json())))
    assert again == policy
    assert hash(again) == hash(policy)
    assert set(policy.to_json()) == {"budget", "filter", *rules}


def test_policies_that_differ_are_not_equal() -> None:
    different = [Policy(BUDGET), *(Policy(BUDGET, **{name: FULL[name]}) for name in FULL)]
    assert len(set(different)) == len(different)
    assert Policy(BUDGET, approvers=("grace",)) == Policy(BUDGET, approvers={"grace": None})


def test_the_unit_cannot_be_changed_from_outside() -> None:
    unit = {"unit": "person", "rows": 2}
    policy = Policy(BUDGET, unit=unit)
    unit["rows"] = 99
    assert policy.unit == {"unit": "person", "rows": 2}


@pytest.mark.parametrize(
    "rules",
    [
        {"per_release": 0},
        {"per_release": "much"},
        {"preparers": ("ada", "ada")},
        {"preparers": ("",)},
        {"preparers": ("ada ",)},
        {"approvers": ("grace\n",)},
        {"approvers": ("x" * 201,)},
        {"approvers": {"grace": "not a key"}},
        {"approvers": {"grace": "0F" * 32}},
        {"preparers": ("ada",), "approvers": ("ada",)},
        {"filter": Filter("rdp-2")},
    ],
)
def test_a_policy_that_could_never_work_is_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Policy(Budget(0.1, 1e-9), **rules)


def test_a_rule_of_a_later_version_is_not_ignored() -> None:
    with pytest.raises(InvalidRequest, match="most_releases"):
        Policy.from_json({**Policy(BUDGET).to_json(), "most_releases": 3})


# -- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "asked", "words"),
    [
        ({"per_release": "0.1"}, {"epsilon": "0.1000001"}, "allows 0.1 at a time"),
        ({"expires": date(2020, 1, 1)}, {}, "ended with 2020-01-01"),
        ({"unit": {"unit": "person"}}, {}, 'fixes {"unit":"person"}'),
        ({"preparers": ("ada", "bo")}, {"by": "eve"}, "lets prepare: ada, bo"),
        ({"preparers": ("ada",)}, {}, "without saying who prepares"),
        ({"approvers": ("grace",)}, {}, "without saying who prepares"),
    ],
)
def test_what_a_policy_refuses_leaves_no_trace(
    tmp_path: Path, rules: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    of = account(tmp_path, **rules)
    before = of.extract()
    with pytest.raises(InvalidRequest) as refused:
        reserve(of, **asked)
    assert words in str(refused.value)
    assert UNTOUCHED in str(refused.value)
    assert of.extract() == before


def test_what_a_policy_allows_is_charged(tmp_path: Path) -> None:
    of = account(
        tmp_path, per_release="0.1", expires=date(2999, 1, 1), unit=UNIT, preparers=("ada",)
    )
    reserve(of, by="ada")
    assert of.ledger.entries("patients")[-1]["payload"]["by"] == "ada"
    assert of.remaining()[0] == Fraction(9, 10)
    assert verify_extract(of.extract()).faults == of.ledger.verify("patients") == []


def test_a_policy_counts_to_the_end_of_its_last_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = account(tmp_path, expires=date(2999, 5, 6))
    for now, allowed in (("2999-05-06T23:59:59", True), ("2999-05-07T00:00:00", False)):
        monkeypatch.setattr(
            "dpsynth_accounting._standing.moment", lambda *_, now=now, **__: f"{now}+00:00"
        )
        if allowed:
            reserve(of)
        else:
            with pytest.raises(InvalidRequest, match="2999-05-07"):
                reserve(of)
    assert of.ledger.verify("patients") == []


def test_a_clock_that_was_put_back_extends_no_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = account(tmp_path, expires=date(2999, 5, 6))
    with monkeypatch.context() as later:
        late = "2999-05-07T00:00:00+00:00"
        later.setattr("dpsynth_accounting._standing.moment", lambda *_, **__: late)
        of.record("inspect", {})
    with pytest.raises(InvalidRequest, match="2999-05-07"):
        reserve(of)


def test_a_filter_refuses_what_it_cannot_count(tmp_path: Path) -> None:
    of = account(tmp_path, filter=Filter("zcdp"))
    with pytest.raises(InvalidRequest, match="costs epsilon"):
        of.reserve(
            ApproxDP(Fraction(1, 2), Fraction(0)), "0.1", 1e-8, unit=UNIT, label="underpriced"
        )
    with pytest.raises(InvalidRequest):
        of.declare(
            ApproxDP(Fraction(2), Fraction(0)),
            1,
            0,
            unit=UNIT,
            adjacency=ADJACENCY,
            source="paper",
            by="ada",
        )
    assert of.spent.cost == 0
    assert len(of.ledger.entries("patients")) == 1


# -- approvals ---------------------------------------------------------------------------------


def released(folder: Path, by: str = "ada", **rules: Any) -> Account:
    of = account(folder, **rules)
    reserve(of, by=by)
    of.record("release", {"manifest": MANIFEST})
    return of


def approved(of: Account, manifest: str = MANIFEST) -> bool:
    state = verify_extract(of.extract())
    assert state.faults == of.ledger.verify("patients") == []
    return state.approved(manifest)


def test_a_release_counts_as_approved_by_someone_who_did_not_prepare_it(tmp_path: Path) -> None:
    of = released(tmp_path, approvers=("ada", "grace"))
    assert not approved(of)
    with pytest.raises(InvalidRequest, match="ada prepared it"):
        of.approve(MANIFEST, "ada")
    of.approve(MANIFEST, "grace")
    assert approved(of)
    assert verify_extract(of.extract()).approvals == {MANIFEST: [("grace", False)]}


@pytest.mark.parametrize(
    ("manifest", "by", "words"),
    [
        (MANIFEST, "eve", "lets approve: grace"),
        ("cd" * 32, "grace", "no release with that manifest"),
    ],
)
def test_what_is_no_approval_is_not_recorded(
    tmp_path: Path, manifest: str, by: str, words: str
) -> None:
    of = released(tmp_path, approvers=("grace",))
    before = of.extract()
    with pytest.raises(InvalidRequest, match=words):
        of.approve(manifest, by)
    assert of.extract() == before


def test_without_approvers_a_recorded_release_needs_none(tmp_path: Path) -> None:
    of = released(tmp_path)
    assert approved(of)
    assert not approved(of, "cd" * 32)
    with pytest.raises(InvalidRequest, match="lets approve: nobody"):
        of.approve(MANIFEST, "grace")


def test_who_prepared_is_told_by_the_reservations_a_release_names(tmp_path: Path) -> None:
    of = account(tmp_path, approvers=("ada", "grace"))
    first = of.reserve(PLAN, 0.1, 1e-8, unit=UNIT, label="first", by="ada")
    second = of.reserve(PLAN, 0.1, 1e-8, unit=UNIT, label="second", by="grace")
    of.record("release", {"manifest": MANIFEST, "reservations": [second.identity]})
    of.approve(MANIFEST, "ada")
    assert approved(of)
    of.record("release", {"manifest": "cd" * 32, "reservations": [first.identity], "by": "grace"})
    for by in ("ada", "grace"):
        with pytest.raises(InvalidRequest, match="prepared it"):
            of.approve("cd" * 32, by)
    of.record("release", {"manifest": "ef" * 32, "reservations": ["0" * 16]})
    of.approve("ef" * 32, "ada")
    assert not approved(of, "ef" * 32), "a reservation that was never made names no preparer"


def test_an_approver_with_a_key_has_to_sign(tmp_path: Path) -> None:
    grace, eve = key(tmp_path, "grace"), key(tmp_path, "eve")
    public = public_hex(grace.with_suffix(".pub"))
    of = released(tmp_path, approvers={"grace": public, "hal": None})
    for wrong in (None, eve):
        with pytest.raises(InvalidRequest, match="not signed with the key"):
            of.approve(MANIFEST, "grace", wrong)
    with pytest.raises(InvalidRequest, match="no public key of hal"):
        of.approve(MANIFEST, "hal", eve)
    with pytest.raises(InvalidRequest, match="no Ed25519 key"):
        of.approve(MANIFEST, "grace", tmp_path / "none.pem")
    assert not approved(of)
    of.approve(MANIFEST, "grace", grace)
    assert approved(of)
    assert verify_extract(of.extract()).approvals == {MANIFEST: [("grace", True)]}


def test_a_signed_head_shows_its_writer(tmp_path: Path) -> None:
    ada = key(tmp_path, "ada")
    of = released(tmp_path)
    head = of.signed_head(ada)
    assert {name: head[name] for name in of.head()} == of.head()
    assert head["public_key"] == public_hex(ada.with_suffix(".pub"))
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(head["public_key"])).verify(
        bytes.fromhex(head["signature"]), canonical(of.head())
    )
    assert _signing.fits(head)
    for field, value in (("seq", 0), ("head", "0" * 64), ("public_key", "0" * 64)):
        assert not _signing.fits({**head, field: value})
    with pytest.raises(InvalidRequest):
        of.signed_head(ada.with_suffix(".pub"))
    with pytest.raises(InvalidRequest):
        public_hex(ada)


# -- what a forger of a policy is told -----------------------------------------------------------


def _raise_cap(payloads: list[dict[str, Any]]) -> None:
    payloads[0]["per_release"] = "1/100"


def _end_earlier(payloads: list[dict[str, Any]]) -> None:
    payloads[0]["expires"] = "2001-01-01"


def _other_unit(payloads: list[dict[str, Any]]) -> None:
    payloads[0]["unit"] = {"unit": "person"}


def _other_preparer(payloads: list[dict[str, Any]]) -> None:
    payloads[1]["by"] = "eve"


def _no_preparer(payloads: list[dict[str, Any]]) -> None:
    del payloads[1]["by"]


def _unknown_rule(payloads: list[dict[str, Any]]) -> None:
    payloads[0]["most_releases"] = 1


def _other_filter(payloads: list[dict[str, Any]]) -> None:
    payloads[0]["filter"] = "gdp"


def _approved_by_nobody(payloads: list[dict[str, Any]]) -> None:
    payloads[3]["by"] = "eve"


def _signature_for_another(payloads: list[dict[str, Any]]) -> None:
    payloads[3]["manifest"] = "cd" * 32


def _no_signature(payloads: list[dict[str, Any]]) -> None:
    del payloads[3]["signature"]


@pytest.mark.parametrize(
    "forge",
    [
        _raise_cap,
        _end_earlier,
        _other_unit,
        _other_preparer,
        _no_preparer,
        _unknown_rule,
        _other_filter,
        _approved_by_nobody,
        _signature_for_another,
        _no_signature,
    ],
)
def test_a_chain_that_broke_its_policy_is_found_out(
    tmp_path: Path, forge: Callable[[list[dict[str, Any]]], None]
) -> None:
    grace = key(tmp_path, "grace")
    public = public_hex(grace.with_suffix(".pub"))
    of = released(tmp_path, preparers=("ada",), approvers={"grace": public}, per_release=1)
    of.approve(MANIFEST, "grace", grace)
    extract = json.loads(json.dumps(of.extract()))
    assert verify_extract(extract).approved(MANIFEST)
    forge([entry["payload"] for entry in extract["entries"]])
    head = GENESIS
    for entry in extract["entries"]:
        head = entry["hash"] = chain_hash(head, entry["payload"])
    extract["head"] = head
    assert verify_extract(extract).faults != []
