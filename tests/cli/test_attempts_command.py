"""The commands that count and cap attempts: ``dpsynth ledger attempts`` and ``dpsynth attack``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpsynth_accounting import Account, Budget, Ledger
from tests.cli.conftest import Runner


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Ledger(tmp_path / "ledger.db").account("people", Budget(1, 1e-6))


def test_a_cap_is_set_with_a_reason_and_shown(account: Account, dpsynth: Runner) -> None:
    ledger = account.ledger.path
    words = ("ledger", "attempts", ledger, "people", 5, "--by", "ada")
    code, _, error = dpsynth(*words, "--reason", " ")
    assert code == 2
    assert "ask why" in error
    code, out, _ = dpsynth(*words, "--reason", "quarterly releases")
    assert (code, out) == (0, "people: 0 attempt(s) so far, 5 allowed\n")
    code, out, _ = dpsynth("ledger", "show", ledger)
    assert "attempts at a release: 0 of at most 5" in out
    code, out, _ = dpsynth("ledger", "show", ledger, "--json")
    assert json.loads(out)[0]["attempts"] == {"made": 0, "most": 5}
    assert dpsynth("ledger", "verify", ledger)[0] == 0


def test_an_attack_is_noted_in_the_account_of_the_rows(
    account: Account, tmp_path: Path, dpsynth: Runner
) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.csv" for name in ("train", "holdout", "synthetic")]
    for path in paths:
        table = pd.DataFrame({"a": rng.integers(0, 9, 200), "b": rng.integers(0, 9, 200)})
        table.to_csv(path, index=False)
    flags = ("--train", paths[0], "--holdout", paths[1], "--synthetic", paths[2])
    ledger, name = ("--ledger", account.ledger.path), ("--account", "people")
    for words in (ledger, name):
        code, _, error = dpsynth("attack", *flags, *words, "--no-classifier")
        assert code == 2
        assert "Give both --ledger and --account" in error
    code, _, error = dpsynth("attack", *flags, *ledger, *name, "--no-classifier")
    assert code in (0, 2), error
    digest = hashlib.sha256(paths[2].read_bytes()).hexdigest()
    assert account.attempts().candidates == (digest,)
    # Without an account there is nothing to write to; beyond the cap nothing is read.
    assert dpsynth("attack", *flags, "--no-classifier")[0] in (0, 2)
    assert account.attempts().made == 1
    account.allow_attempts(1, "one is enough", "ada")
    paths[0].unlink()  # only a refusal that comes first can be clean
    paths[2].write_text("a,b\n1,2\n")
    code, _, error = dpsynth("attack", *flags, *ledger, *name, "--no-classifier")
    assert code == 2
    assert "Attempt 2 at a release" in error
