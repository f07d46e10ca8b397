"""One command from a private table to a verified release, and everything that may go wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.progress import Progress, TaskID

from dpsynth.bundle import verify
from dpsynth.recipe import Recipe
from dpsynth.run import run_recipe
from dpsynth_accounting import Ledger
from tests import repeatable
from tests.end_to_end.conftest import Project, make_project

UNTOUCHED = "No private row was read and nothing was spent."


def dpsynth(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = repeatable.python("-m", "dpsynth", *words)
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def interruptible() -> None:
    """Let a process that is started be interrupted, even where this one ignores interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(project: Project, *more: str) -> subprocess.Popen[str]:
    """Start a run, to be killed."""
    command = repeatable.python("-m", "dpsynth", "run", project.recipe, project.table)
    return subprocess.Popen(
        [*command, "--out", project.out, *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def run(project: Project, *more: object) -> subprocess.CompletedProcess[str]:
    return dpsynth("run", project.recipe, project.table, "--out", project.out, *more)


def spent(project: Project) -> float:
    if not project.ledger.exists():
        return 0.0
    ledger = Ledger(project.ledger)
    if "people" not in ledger.accounts():
        return 0.0
    account = ledger.existing("people")
    return float(account.budget.epsilon - account.remaining()[0])


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project that was run once, with what the run printed as JSON."""
    project = make_project(tmp_path_factory.mktemp("released"))
    done = run(project, "--json")
    assert done.returncode == 0, done.stderr
    (project.folder / "told.json").write_text(done.stdout)
    return project


def test_a_run_releases_and_the_release_verifies(released: Project) -> None:
    told = json.loads((released.folder / "told.json").read_text())
    assert told["released"]
    assert told["statement"]["epsilon"] == 2.0
    table = pd.read_csv(released.out / "table.csv")
    assert list(table) == ["person", "age", "sex", "answer", "city", "income", "visit", "smoker"]
    assert table["age"].between(0, 110).all()
    assert set(table["sex"]) <= {"F", "M"}
    assert set(table["city"]) <= {"Springfield", "Shelbyville", 'Ogden "Ville"', "other"}
    # The dependence of the answer on age survives.
    older = table[table["age"] > 55]["answer"].eq("yes, but").mean()
    younger = table[table["age"] < 45]["answer"].eq("yes, but").mean()
    assert older > younger + 0.2
    found = dpsynth("verify", released.out)
    assert found.returncode == 0
    assert found.stdout.startswith("ok: integrity shown; not signed")
    assert Ledger(released.ledger).verify("people") == []
    internal = released.folder / "release-internal"
    assert stat.S_IMODE(internal.stat().st_mode) == 0o700
    assert stat.S_IMODE((internal / "report.html").stat().st_mode) == 0o600


def test_exact_results_are_in_no_public_file(released: Project) -> None:
    exact = json.loads((released.folder / "release-internal" / "report.json").read_text())
    public = "".join(
        path.read_text()
        for path in released.out.iterdir()
        if path.suffix in {".json", ".html", ".txt"}
    )
    attacks = exact["attacks"]
    tests = (*attacks["membership"].values(), *attacks["copies"]["nearest"].values())
    figures = [exact["fidelity"][name] for name in ("one_way", "two_way")]
    figures += [test["auc"]["value"] for test in tests]
    # An area of 0.5 may stand anywhere; a figure of eight characters and more is nobody else's.
    telling = [repr(figure) for figure in figures if len(repr(figure)) >= 8]
    assert len(telling) > len(figures) / 2
    assert not [figure for figure in telling if figure in public]
    for finding in attacks["verdict"]["findings"]:
        assert finding["sentence"] not in public
    assert attacks["verdict"]["sentence"] not in public
    for name in ("Shelbyville", "Springfield"):  # discovered, hence paid and public
        assert name in public
    assert "P00001" not in public
    internal = (released.folder / "release-internal" / "report.html").read_text()
    assert "do not distribute" in internal


@pytest.mark.parametrize(
    "name",
    ["table.csv", "model.npz", "manifest.json", "ledger.json", "head.json", "report.json"],
)
def test_one_changed_byte_fails_verification(released: Project, name: str) -> None:
    path = released.out / name
    raw = path.read_bytes()
    for position in (0, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        assert not verify(released.out).ok
    path.write_bytes(raw)
    assert verify(released.out).ok


def test_a_stray_file_fails_verification(released: Project) -> None:
    stray = released.out / "stray.txt"
    stray.write_text("x")
    assert not verify(released.out).ok
    stray.unlink()
    assert verify(released.out).ok


def test_an_overspend_is_refused_before_the_file_is_opened(released: Project) -> None:
    hidden = released.folder / "not-there.csv"  # only a refusal that comes first can be clean
    again = dpsynth("run", released.recipe, hidden, "--out", released.folder / "second")
    assert again.returncode == 2
    assert "has epsilon 0" in again.stderr
    assert UNTOUCHED in again.stderr
    assert not (released.folder / "second").exists()


def test_a_release_folder_that_exists_is_refused(released: Project) -> None:
    again = run(released)
    assert again.returncode in (1, 2)
    assert "exists already" in again.stderr
    assert UNTOUCHED in again.stderr


def test_the_table_of_a_run_has_the_noisy_number_of_rows(released: Project) -> None:
    rows = len(pd.read_csv(released.out / "table.csv"))
    true = len(pd.read_csv(released.table))
    assert rows != true
    assert abs(rows - 0.9 * true) < 0.2 * true


def test_sampling_a_release_is_free_and_repeatable(released: Project) -> None:
    before = spent(released)
    one = dpsynth("sample", released.out, "-n", 50, "--seed", 3)
    two = dpsynth("sample", released.out, "-n", 50, "--seed", 3)
    assert one.returncode == 0
    assert one.stdout == two.stdout
    assert len(one.stdout.splitlines()) == 51
    assert spent(released) == before


def test_a_signature_shows_who_wrote_it(project: Project) -> None:
    key, public = project.folder / "key.pem", project.folder / "key.pub"
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    form = s.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(private.public_key().public_bytes(s.Encoding.PEM, form))
    assert run(project, "--signing-key", key).returncode == 0
    assert verify(project.out).authenticity == "signed"
    assert verify(project.out, public).authenticity == "authentic"
    other = Ed25519PrivateKey.generate().public_key().public_bytes(s.Encoding.PEM, form)
    public.write_bytes(other)
    assert not verify(project.out, public).ok


def test_killed_anywhere_a_run_keeps_its_charge_and_resumes_free(project: Project) -> None:
    project.edit("ledger.db", "rehearsal.db")  # in one ledger, they would be the same people
    started = time.monotonic()
    rehearsal = project.folder / "rehearsal"
    assert dpsynth("run", project.recipe, project.table, "--out", rehearsal).returncode == 0
    whole = time.monotonic() - started
    project.edit("rehearsal.db", "ledger.db")
    rng = np.random.default_rng(5)
    kills = 0
    for moment in rng.uniform(0.2, 0.9, 10) * whole:
        shutil.rmtree(project.out, ignore_errors=True)  # a run that finished is resumed as well
        process = start(project, "--resume")
        try:
            process.wait(timeout=float(moment))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        ledger = Ledger(project.ledger)
        if "people" in ledger.accounts():
            assert ledger.verify("people") == []
            kinds = [entry["payload"]["kind"] for entry in ledger.entries("people")]
            assert kinds.count("reserve") <= 1
            if "begin" in kinds:
                assert spent(project) == 2.0
        ledger.close()
    assert kills >= 3
    shutil.rmtree(project.out, ignore_errors=True)
    assert run(project, "--resume").returncode == 0
    assert verify(project.out).ok
    assert spent(project) == 2.0
    payloads = [entry["payload"] for entry in Ledger(project.ledger).entries("people")]
    drawn = [(each["step"], each["part"]) for each in payloads if each["kind"] == "answer"]
    assert len(drawn) == len(set(drawn))  # no answer was ever drawn twice


def test_a_training_shows_how_far_it_is(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    update = Progress.update

    def noted(self: Progress, task: TaskID, **facts: Any) -> None:
        shown.append(str(facts.get("description")))
        update(self, task, **facts)

    monkeypatch.setattr(Progress, "update", noted)
    method = '\n[method]\nname = "vae"\niterations = 20\nhidden = 4\n'
    project.recipe.write_text(project.recipe.read_text() + method)
    screen = Console(file=io.StringIO(), force_terminal=True)
    run_recipe(Recipe.load(project.recipe), project.table, project.out, console=screen)
    steps = [each for each in shown if each.startswith("fitting the model: training")]
    assert [each.rpartition("step ")[2] for each in steps] == [f"{i} of 20" for i in range(1, 21)]


def test_an_interrupted_run_tells_how_to_go_on(project: Project) -> None:
    # The signal comes when the run is about to write: by the clock it could come after the end.
    code = (
        "import os, signal, sys, time\n"
        "import dpsynth.release as r\n"
        "from dpsynth.cli import main\n"
        "def interrupted(self, *a, **k):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
        "r.Release.write = interrupted\n"
        "main()\n"
    )
    words = ["run", project.recipe, project.table, "--out", project.out]
    done = subprocess.run(
        repeatable.python("-c", code, *words),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=interruptible,
    )
    assert done.returncode == 1
    assert "--resume" in done.stderr
    assert not project.out.exists()
    assert spent(project) == 2.0
    assert run(project, "--resume").returncode == 0
    assert spent(project) == 2.0


def test_a_full_disk_leaves_nothing_half_written(project: Project) -> None:
    code = (
        "import resource, sys\n"
        "from dpsynth.run import run_recipe; from dpsynth.recipe import Recipe\n"
        "import dpsynth.release as r\n"
        "from rich.console import Console\n"
        "whole = r.Release.write\n"
        "def tight(self, *a, **k):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))\n"
        "    return whole(self, *a, **k)\n"
        "r.Release.write = tight\n"
        "from dpsynth_accounting import DpsynthError\n"
        "try:\n"
        "    run_recipe(Recipe.load(sys.argv[1]), sys.argv[2], sys.argv[3], console=Console())\n"
        "except DpsynthError as error:\n"
        "    print(error); sys.exit(7)\n"
    )
    done = subprocess.run(
        repeatable.python("-c", code, project.recipe, project.table, project.out),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "--resume" in done.stdout
    assert not project.out.exists()
    assert not list(project.folder.glob(".*unfinished*"))
    assert Ledger(project.ledger).verify("people") == []
    assert run(project, "--resume").returncode == 0
    assert verify(project.out).ok


def test_two_runs_race_for_the_last_epsilon(project: Project) -> None:
    words = ("-m", "dpsynth", "run", project.recipe, project.table, "--out")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    both = [
        subprocess.Popen(repeatable.python(*words, project.folder / name), **quiet)
        for name in ("one", "two")
    ]
    codes = sorted(process.wait(timeout=120) for process in both)
    assert codes == [0, 2]
    assert spent(project) == 2.0
    assert Ledger(project.ledger).verify("people") == []


def test_a_leaky_mechanism_is_refused_with_exit_code_two(project: Project, tmp_path: Path) -> None:
    """A broken twin: a synthesizer that copies its training rows must fail its attacks."""
    plugin = tmp_path / "leaky.py"
    plugin.write_text(LEAKY)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        repeatable.python(plugin, project.recipe, project.table, project.out),
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert not project.out.exists()
    assert "NOT released" in done.stdout


LEAKY = """
import sys
from dataclasses import dataclass, replace
import numpy as np
from dpsynth import Independent
from dpsynth.recipe import Recipe
from dpsynth.run import run_recipe
from rich.console import Console

@dataclass
class Copy:
    inner: object
    codes: dict
    def __getattr__(self, name): return getattr(self.inner, name)
    def sample_codes(self, n, *, rng):
        rows = rng.integers(0, len(next(iter(self.codes.values()))), n)
        return {k: v[rows] for k, v in self.codes.items()}
    def sample(self, n=None, *, rng):
        n = len(next(iter(self.codes.values())))
        return self.inner.domain.decode(self.codes, rng=rng)
    def save(self, path): self.inner.save(path)

class Leaky:
    name = "leaky"
    def steps(self, columns): return Independent().steps(columns)
    def run(self, block):
        model = Independent().run(block)
        return Copy(model, block._vault._training())   # what a plug-in must never do

recipe = replace(Recipe.load(sys.argv[1]), synthesizer=Leaky(), audit_share=0.5,
                 shares=(10.0, 30.0, 60.0))
result = run_recipe(recipe, sys.argv[2], sys.argv[3], console=Console(stderr=True))
print(result.text())
sys.exit(0 if result.released else 2)
"""


def test_the_same_people_under_another_account(released: Project) -> None:
    """Refused before an answer, at no charge; granted once it is written down that they are."""
    other = released.folder / "other.toml"
    text = released.recipe.read_text().replace('name = "people"', 'name = "others"')
    other.write_text(text + '\n[method]\nname = "independent"\n')
    out = released.folder / "others"
    command = ("run", other, released.table, "--out", out)
    refused = dpsynth(*command)
    assert refused.returncode == 2
    assert "account 'people'" in refused.stderr
    assert "nothing was spent or answered" in refused.stderr
    assert not out.exists()
    account = Ledger(released.ledger).existing("others")
    assert account.remaining()[0] == account.budget.epsilon
    words = ("--reason", "two studies, one cohort", "--by", "the data officer")
    assert (
        dpsynth("ledger", "override", released.ledger, "others", "people", *words).returncode == 0
    )
    granted = dpsynth(*command)
    assert granted.returncode == 0, granted.stderr
    assert verify(out).ok
    assert "two studies, one cohort" in (out / "ledger.json").read_text()
    kept = list(Ledger(released.ledger).sketches().values())
    assert len(kept) == 2
    public = b"".join(path.read_bytes() for path in out.iterdir())
    assert not any(raw in public or raw.hex().encode() in public for raw in kept)
    manifest = released.out / "manifest.json"
    found = dpsynth("ledger", "verify", released.ledger, "--manifest", manifest)
    assert found.returncode == 0, found.stdout
