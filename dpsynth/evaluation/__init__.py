"""What a release is worth: fidelity of its marginals, utility of models made from it."""

from dpsynth.evaluation.fidelity import ExactFidelity as ExactFidelity
from dpsynth.evaluation.fidelity import exact_fidelity as exact_fidelity
from dpsynth.evaluation.fidelity import mean_tvd as mean_tvd
from dpsynth.evaluation.fidelity import pair_cliques as pair_cliques
from dpsynth.evaluation.fidelity import synthetic_answers as synthetic_answers
from dpsynth.evaluation.fidelity import tvd as tvd
from dpsynth.evaluation.fidelity import tvd_per_l1 as tvd_per_l1
from dpsynth.evaluation.utility import MajorityClass as MajorityClass
from dpsynth.evaluation.utility import TargetClassifier as TargetClassifier
