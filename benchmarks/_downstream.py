"""What a made table is worth to whoever predicts a column from it."""

from __future__ import annotations

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from dpsynth.synthesizer import Synthesizer, named
from dpsynth.workload import Workload

ABOUT = ", about the target"


def made_for(method: str, target: str) -> Synthesizer:
    """Return a method; with ``ABOUT`` behind its name, told what `dp.recommend` tells it of it."""
    words = {"workload": Workload.about(target, 3)} if method.endswith(ABOUT) else {}
    return named(method.removesuffix(ABOUT), words)


def auc(train: pd.DataFrame, test: pd.DataFrame, target: str) -> float:
    """Return the area under the curve of a column on the test rows; 0.5 if all are alike.

    Args:
        train: Codes of the rows that gradient boosting is fitted to.
        test: Codes of the rows that it is tried on.
        target: The column, of two codes.
    """
    if train[target].nunique() < 2:
        return 0.5
    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(train.drop(columns=target), train[target])
    return float(roc_auc_score(test[target], model.predict_proba(test.drop(columns=target))[:, 1]))
