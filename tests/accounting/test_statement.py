"""The statement: every limit against mechanisms whose truth is known in closed form."""

from __future__ import annotations

import json
import math
from datetime import date
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from dpsynth_accounting import (
    ADJACENCY,
    ApproxDP,
    Budget,
    Gaussian,
    Ledger,
    Policy,
    PublicFact,
    Statement,
    curve,
    least_epsilon,
    odometer,
    statement,
)
from dpsynth_accounting.statement import NOT_COVERED, PRIORS, RARELY, posterior

ROW = {"unit": "row"}
PERSON = {"unit": "person", "column": "patient", "rows": 3}
DELTA = Fraction(1, 10**6)


def of_gaussian(sigma: Fraction) -> Statement:
    event = Gaussian(sigma)
    return statement(event, least_epsilon(event, DELTA), DELTA, ROW)


def of_pair(epsilon: Fraction, delta: Fraction) -> Statement:
    return statement(ApproxDP(epsilon, delta), epsilon, delta, ROW)


def worst_pair(epsilon: float, delta: float) -> list[tuple[float, float]]:
    """The probabilities (took part, did not) of each outcome of the worst (epsilon, delta) pair.

    Kairouz, Oh, Viswanath 2015: every such mechanism can be simulated from it.
    """
    high = (1 - delta) * math.exp(epsilon) / (1 + math.exp(epsilon))
    low = (1 - delta) / (1 + math.exp(epsilon))
    return [(delta, 0.0), (high, low), (low, high), (0.0, delta)]


@pytest.mark.parametrize("sigma", [Fraction(1), Fraction(5), Fraction(30)])
def test_posteriors_bound_those_of_a_gaussian_and_are_not_far_above(sigma: Fraction) -> None:
    mu = 1 / float(sigma)
    for belief in of_gaussian(sigma).beliefs:
        for rarely, stated in belief.posteriors.items():
            loss = mu * mu / 2 + mu * float(ndtri(1 - float(rarely)))
            assert stated >= posterior(belief.prior, loss)
            # The tail bound that was proved gives away a little over one over its hazard rate.
            assert stated <= posterior(belief.prior, loss + 0.4 * mu)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 6), st.sampled_from([1e-9, 1e-6, 1e-4, 0.01, 0.3]))
def test_posteriors_hold_on_the_worst_mechanism(epsilon: float, delta: float) -> None:
    exact_epsilon, exact_delta = Fraction(repr(epsilon)), Fraction(repr(delta))
    for belief in of_pair(exact_epsilon, exact_delta).beliefs:
        prior = float(belief.prior)
        for rarely, stated in belief.posteriors.items():
            for side in (0, 1):  # whether the person did take part or not
                unlucky = sum(
                    chances[side]
                    for chances in worst_pair(epsilon, delta)
                    if prior * chances[0] > 0
                    and prior * chances[0] / (prior * chances[0] + (1 - prior) * chances[1])
                    > stated
                )
                assert unlucky <= float(rarely)


def test_posteriors_are_the_truth_where_there_is_no_delta() -> None:
    found = of_pair(Fraction(1), Fraction(1, 10**12))
    for belief in found.beliefs:
        truth = posterior(belief.prior, 1.0)
        assert truth <= belief.posteriors[RARELY] <= truth * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 6), st.sampled_from([1e-9, 1e-4, 0.01]))
def test_no_test_on_the_worst_mechanism_accuses_more_rightly(epsilon: float, delta: float) -> None:
    """Brute force over the most powerful tests: outcomes in order of their likelihood ratio."""
    found = of_pair(Fraction(repr(epsilon)), Fraction(repr(delta)))
    for belief in found.beliefs:
        prior = float(belief.prior)
        for wrongly, stated in belief.accused.items():
            recognised = accused = 0.0
            for took, did_not in worst_pair(epsilon, delta):
                # Accuse on a share of this outcome, so that the rate is met exactly.
                part = min(1.0, (wrongly - accused) / did_not) if did_not else 1.0
                recognised, accused = recognised + part * took, accused + part * did_not
            assert accused == pytest.approx(wrongly, rel=1e-9)
            rightly = prior * recognised / (prior * recognised + (1 - prior) * accused)
            assert rightly <= stated * (1 + 1e-12)
            assert stated <= rightly * 1.001  # the pair is the worst, so the limit is met


def test_accusing_more_is_right_less_often() -> None:
    for belief in of_gaussian(Fraction(4)).beliefs:
        assert all(rare >= common for rare, common in pairwise(belief.accused.values()))


@pytest.mark.parametrize("sigma", [Fraction(1), Fraction(10)])
def test_advantage_of_a_gaussian_is_its_total_variation(sigma: Fraction) -> None:
    truth = 2 * float(ndtr(0.5 / float(sigma))) - 1
    assert truth <= of_gaussian(sigma).advantage <= truth * 1.001


def test_advantage_of_the_worst_pair() -> None:
    truth = (math.e - 1 + 2e-3) / (math.e + 1)
    assert truth <= of_pair(Fraction(1), Fraction(1, 1000)).advantage <= truth * 1.0001


def test_rates_come_from_the_curve_of_the_plan_and_not_from_one_point_of_it() -> None:
    event = Gaussian(Fraction(4))
    epsilon = least_epsilon(event, DELTA)
    own, alone = statement(event, epsilon, DELTA, ROW), of_pair(epsilon, DELTA)
    for fpr, tpr in own.rates.items():
        assert tpr == curve(event).true_positive_rate(fpr)
        assert tpr < 0.8 * alone.rates[fpr]
    assert own.advantage < 0.5 * alone.advantage


@settings(max_examples=100, deadline=None)
@given(
    st.fractions(Fraction(1, 1000), Fraction(999, 1000)),
    st.floats(0, 30),
    st.floats(0, 3),
)
def test_posterior_grows_with_belief_and_loss(prior: Fraction, loss: float, more: float) -> None:
    assert float(prior) <= posterior(prior, loss) * (1 + 1e-12) <= 1 + 1e-11
    assert posterior(prior, loss) <= posterior(prior, loss + more)
    assert posterior(prior, loss) <= posterior((prior + 1) / 2, loss)


def test_a_delta_too_large_to_call_rare_is_the_exception_itself() -> None:
    (belief, *_) = of_pair(Fraction(1), Fraction(1, 100)).beliefs
    assert list(belief.posteriors) == [Fraction(1, 50)]
    # At 2 delta the loss is epsilon + log 2, whatever the mechanism.
    assert belief.posteriors[Fraction(1, 50)] <= posterior(PRIORS[0], 1 + math.log(2) + 1e-6)


def test_json_is_plain_and_names_the_terms() -> None:
    found = json.loads(json.dumps(of_gaussian(Fraction(5)).to_json()))
    assert "SP 800-226" in found["terms"]
    assert found["adjacency"] == ADJACENCY
    assert found["neighbours"].startswith("unbounded")
    assert found["trust_model"] == "central"
    assert [each["prior"] for each in found["prior_knowledge"]] == [0.01, 0.1, 0.5]
    assert [each["false_positive_rate"] for each in found["attacker"]] == [0.001, 0.01]
    assert found["so_far"] is None
    assert found["not_covered"] == list(NOT_COVERED)


def test_sentences_name_the_unit_and_round_against_the_promise() -> None:
    row, person = of_gaussian(Fraction(5)), None
    person = statement(Gaussian(Fraction(5)), Fraction(2, 3), DELTA, PERSON)
    assert "one row (not a person" in row.sentences()[0]
    assert "one person, with at most 3 of their rows" in person.sentences()[0]
    assert "(0.666667, 1e-06)-differentially private" in person.sentences()[0]
    stated = float(row.sentences()[2].split("at most ")[1].split("%")[0])
    assert row.rates[0.01] * 100 <= stated < row.rates[0.01] * 100 + 0.011


def test_page_holds_everything_within_its_width(tmp_path: Path) -> None:
    policy = Policy(
        Budget(3, 1e-6),
        per_release=1,
        expires=date(2027, 1, 31),
        preparers=("ada",),
        approvers=("grace",),
    )
    account = Ledger(tmp_path / "ledger.db").account("patients", policy)
    account.reserve(Gaussian(Fraction(10)), 0.5, 1e-7, unit=PERSON, label="run mst", by="ada")
    account.declare(
        ApproxDP(Fraction(1, 4), Fraction(0)),
        Fraction(1, 4),
        0,
        unit=PERSON,
        adjacency=ADJACENCY,
        source="the 2019 survey",
        by="linus",
    )
    account.record("release", {"manifest": "ab" * 32})
    meter = odometer(account.extract())
    public = [
        PublicFact("age", "bounds declared", "code book", "A. Steward"),
        PublicFact("weight", "bounds declared", "code book", "A. Steward"),
        PublicFact("ward", "categories declared"),
    ]
    found = statement(
        Gaussian(Fraction(10)),
        Fraction(1, 2),
        Fraction(1, 10**7),
        PERSON,
        spent=meter.so_far(),
        public=public,
        policy=meter.policy,
    )
    text = found.text()
    words = " ".join(text.split())
    assert all(len(line) <= 100 for line in text.splitlines())
    assert len(text.splitlines()) <= 85
    for each in found.sentences():
        assert each in words.replace(" - ", " ")
    assert "age, weight: bounds declared (source: code book; attested by: A. Steward)" in words
    assert "ward: categories declared (source: no source given; attested by: nobody)" in words
    assert "Prepared by ada" in words
    assert "Approved by grace" in words
    assert "at most epsilon 1" in words
    assert "2027-01-31" in words
    assert "epsilon 0.25, delta 0 by linus from the 2019 survey; not enforced" in words
    assert "declared, not enforced, and to be added" in words
    told = found.to_json()
    assert told["policy"] == policy.to_json()
    assert told["so_far"]["declared"][0]["enforced"] is False
    # Against everything: what was enforced and what was declared, added up.
    both = curve(ApproxDP(Fraction(3, 4), Fraction(1, 10**7)))
    assert told["so_far"]["attacker"][1]["true_positive_rate_at_most"] == (
        both.true_positive_rate(0.01)
    )


def test_sums_of_several_releases_are_stated(tmp_path: Path) -> None:
    account = Ledger(tmp_path / "ledger.db").account("patients", Budget(3, 1e-6))
    for _ in range(2):
        account.reserve(Gaussian(Fraction(10)), 0.5, 1e-7, unit=ROW, label="run mst")
    account.record("release", {"manifest": "ab" * 32})
    meter = odometer(account.extract())
    found = statement(
        Gaussian(Fraction(10)),
        Fraction(1, 2),
        Fraction(1, 10**7),
        ROW,
        spent=meter.so_far(releasing=True),
    )
    assert found.sentences()[-1] == (
        "So far account 'patients' has paid for 2 releases: together (1, 2e-07), of (3, 1e-06) "
        "that it ever grants."
    )
