"""Hold the layers and the repository's rules of code, and show that each rule can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.rules import Module

ROOT = Path(__file__).parents[2]
SHIPPED = rules.shipped(ROOT)

Rule = Callable[[Module], list[str]]


def _name(rule: Rule) -> str:
    return rule.__name__


def test_every_shipped_module_is_read() -> None:
    names = {module.name for module in SHIPPED}
    assert {"dpsynth", "dpsynth.vault", "dpsynth_accounting", "dpsynth_accounting.ledger"} <= names


@pytest.mark.parametrize("rule", rules.RULES, ids=_name)
def test_rule_holds(rule: Rule) -> None:
    assert [fault for module in SHIPPED for fault in rule(module)] == []


TWINS: list[tuple[Rule, str, str]] = [
    # Layers: each floor reaches for one above it.
    (rules.layers, "dpsynth.schema", "from dpsynth.engines import marginal_counts"),
    (rules.layers, "dpsynth.domain", "import dpsynth.vault"),
    (rules.layers, "dpsynth.codec", "from dpsynth import Vault"),
    (rules.layers, "dpsynth.codec", "import dpsynth as dp"),
    (rules.layers, "dpsynth.engines.arrays", "from dpsynth.vault import Row"),
    (rules.layers, "dpsynth.engines.arrays", "from ..vault import Row"),
    (rules.layers, "dpsynth.vault._vault", "from dpsynth.synthesizer import Model"),
    *[
        (rules.layers, "dpsynth.vault._vault", f"def f():\n    from dpsynth.{above} import x")
        for above in ("marginal", "deep", "attacks", "evaluation", "report", "release", "cli")
    ],
    (rules.layers, "dpsynth.synthesizer", "from dpsynth.marginal import MST"),
    (rules.layers, "dpsynth.marginal.mst", "from dpsynth.recipe import Recipe"),
    (
        rules.layers,
        "dpsynth.vault._block",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dpsynth.release import R",
    ),
    (
        rules.layers,
        "dpsynth.vault._block",
        "import importlib\nimportlib.import_module('dpsynth.x')",
    ),
    # Neighbours in the middle.
    *[
        (rules.layers, f"dpsynth.{one}.thing", f"from dpsynth.{other} import thing")
        for one in sorted(rules.MIDDLE)
        for other in sorted(rules.MIDDLE)
        if one != other
    ],
    (rules.engines_are_the_vaults, "dpsynth.marginal.mst", "from dpsynth.engines import arrays"),
    (rules.engines_are_the_vaults, "dpsynth.release", "import dpsynth.engines.arrays as count"),
    (rules.accounting_stands_alone, "dpsynth_accounting.events", "from dpsynth.schema import S"),
    (rules.accounting_stands_alone, "dpsynth_accounting.ledger", "import pandas as pd"),
    (rules.accounting_stands_alone, "dpsynth_accounting.curves", "import dp_accounting"),
    (rules.accounting_stands_alone, "dpsynth_accounting.ledger", "import cryptography"),
    (rules.torch_stays_deep, "dpsynth.vault._block", "def f():\n    import torch.nn as nn"),
    (rules.torch_stays_deep, "dpsynth.deepish", "from opacus import GradSampleModule"),
    (rules.heavy_imports_are_lazy, "dpsynth.evaluation.utility", "from sklearn import metrics"),
    (rules.heavy_imports_are_lazy, "dpsynth.vault._rows", "class A:\n    import pyarrow"),
    (rules.heavy_imports_are_lazy, "dpsynth_accounting.interop", "import dp_accounting"),
    # Code.
    (rules.no_assert, "dpsynth.codec", "def f(x):\n    assert x > 0"),
    (rules.no_pickle, "dpsynth.marginal.mst", "import pickle"),
    (rules.no_pickle, "dpsynth.marginal.mst", "def f():\n    from joblib import dump"),
    (rules.no_pickle, "dpsynth.deep.vae", "import torch\ntorch.load('x')"),
    (rules.no_pickle, "dpsynth.codec", "import pandas as pd\npd.read_pickle('x')"),
    (rules.no_pickle, "dpsynth.codec", "def f(frame):\n    frame.to_pickle('x')"),
    (rules.no_pickle, "dpsynth.codec", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    (rules.no_pickle, "dpsynth.codec", "def f(np, yes):\n    np.load('x', allow_pickle=yes)"),
    (rules.no_global_randomness, "dpsynth.codec", "import numpy as np\nnp.random.seed(0)"),
    (rules.no_global_randomness, "dpsynth.codec", "import numpy as np\nnp.random.normal(3)"),
    (rules.no_global_randomness, "dpsynth.codec", "from numpy import random as r\nr.choice(3)"),
    (rules.no_global_randomness, "dpsynth.codec", "from numpy.random import randint\nrandint(3)"),
    (rules.no_global_randomness, "dpsynth.codec", "import random\nrandom.seed(0)"),
    (rules.no_global_randomness, "dpsynth.codec", "from random import shuffle\nshuffle([])"),
    (rules.no_global_randomness, "dpsynth.deep.vae", "import torch\ntorch.manual_seed(0)"),
    (rules.no_global_randomness, "dpsynth.deep.vae", "import torch as t\nt.cuda.manual_seed(0)"),
    (rules.no_global_randomness, "dpsynth.vault._train", "import torch\ntorch.manual_seed(0)"),
    (rules.no_global_randomness, "dpsynth.vault._train._loop", "import torch\ntorch.seed()"),
    (rules.no_unseeded_generator, "dpsynth.codec", "import numpy as np\nnp.random.default_rng()"),
    (
        rules.no_unseeded_generator,
        "dpsynth.codec",
        "from numpy.random import default_rng as rng\nrng(None)",
    ),
    (rules.no_long_module, "dpsynth.codec", "x = 1\n" * 451),
]


@pytest.mark.parametrize(("rule", "name", "source"), TWINS)
def test_offence_is_flagged(rule: Rule, name: str, source: str) -> None:
    assert rule(Module(name, source)), source


OFFENDING_EXPORTS = [
    "from dpsynth.a import b",
    "from dpsynth.a import *",
    "from dpsynth.a import b as b\nfrom dpsynth.c import b as b",
    "from .a import b as b",
    "import numpy",
    "LIMIT = 3",
    "def helper():\n    return 3",
]


@pytest.mark.parametrize("source", OFFENDING_EXPORTS)
def test_offending_export_is_flagged(source: str) -> None:
    assert rules.exports_once(Module("dpsynth.thing", source, is_package=True))


INNOCENT: list[tuple[Rule, str, str]] = [
    (rules.layers, "dpsynth.marginal.mst", "from dpsynth.marginal.factor import Factor"),
    (rules.layers, "dpsynth.attacks.neighbours", "from dpsynth.vault import Block"),
    (rules.layers, "dpsynth.cli", "from dpsynth import release, attacks, evaluation"),
    (rules.engines_are_the_vaults, "dpsynth.vault._block", "from dpsynth.engines import arrays"),
    (
        rules.accounting_stands_alone,
        "dpsynth_accounting.interop",
        "def f():\n    import dp_accounting",
    ),
    (rules.torch_stays_deep, "dpsynth.vault._train", "import torch"),
    (rules.torch_stays_deep, "dpsynth.deep.vae", "from torch import nn"),
    (rules.heavy_imports_are_lazy, "dpsynth.bundle", "def f():\n    import sklearn"),
    (rules.no_pickle, "dpsynth.codec", "import numpy as np\nnp.load('x', allow_pickle=False)"),
    (rules.no_global_randomness, "dpsynth.codec", "import numpy as np\nr: np.random.Generator"),
    (rules.no_global_randomness, "dpsynth.codec", "from secrets import token_bytes\ntoken_bytes()"),
    (rules.no_unseeded_generator, "dpsynth.codec", "import numpy as np\nnp.random.default_rng(7)"),
    (rules.no_long_module, "dpsynth.codec", "x = 1\n" * 450),
]


@pytest.mark.parametrize(("rule", "name", "source"), INNOCENT)
def test_innocent_is_let_pass(rule: Rule, name: str, source: str) -> None:
    assert rule(Module(name, source)) == []


def test_renamed_and_versioned_exports_are_let_pass() -> None:
    source = '"""Doc."""\nfrom dpsynth.a import b as a_b\n__version__ = "1"'
    assert rules.exports_once(Module("dpsynth.thing", source, is_package=True)) == []


def test_every_rule_has_a_twin() -> None:
    shown = {rule for rule, _, _ in TWINS} | {rules.exports_once}
    assert shown == set(rules.RULES)
