"""Attacks on a released table, and what may be concluded from them."""

from dpsynth.attacks.canaries import CanaryAudit as CanaryAudit
from dpsynth.attacks.canaries import canary_audit as canary_audit
from dpsynth.attacks.internal import InternalResults as InternalResults
from dpsynth.attacks.internal import internal_results as internal_results
from dpsynth.attacks.membership import Attack as Attack
from dpsynth.attacks.membership import DistanceRatio as DistanceRatio
from dpsynth.attacks.membership import ExactMatch as ExactMatch
from dpsynth.attacks.membership import NearestDistance as NearestDistance
from dpsynth.attacks.membership import RecordAttack as RecordAttack
from dpsynth.attacks.neighbours import nearest_distances as nearest_distances
from dpsynth.attacks.verdict import AttackCounts as AttackCounts
from dpsynth.attacks.verdict import AttackFinding as AttackFinding
from dpsynth.attacks.verdict import Verdict as Verdict
from dpsynth.attacks.verdict import public_verdict as public_verdict
