"""Mechanisms that measure marginals, and the inference behind them: all of it post-processing."""

from dpsynth.marginal.adaptive import AIM as AIM
from dpsynth.marginal.adaptive import MWEM as MWEM
from dpsynth.marginal.clique_tree import CliqueTree as CliqueTree
from dpsynth.marginal.independent import Independent as Independent
from dpsynth.marginal.model import MarginalModel as MarginalModel
from dpsynth.marginal.mst import MST as MST
from dpsynth.marginal.privbayes import PrivBayes as PrivBayes
