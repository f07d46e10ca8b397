"""Model files of the neural generators: safetensors, with a JSON header in the metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dpsynth_accounting import InvalidRequest

M = TypeVar("M")


def write(
    path: str | os.PathLike[str],
    form: str,
    version: int,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Write arrays and a header; equal ones give equal bytes."""
    whole = {"format": form, "format_version": version, **header}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    plain = {name: np.ascontiguousarray(each) for name, each in arrays.items()}
    Path(path).write_bytes(save(plain, metadata={"header": text}))


def read(
    path: str | os.PathLike[str],
    form: str,
    version: int,
    make: Callable[[dict[str, Any], dict[str, NDArray[Any]]], M],
) -> M:
    """Read what :func:`write` wrote, and make a model of it; no code in the file is ever run.

    Args:
        path: The file.
        form: The format it must have.
        version: The version it must have.
        make: Makes a model of the header, without format and version, and the arrays; to raise
            ValueError, KeyError, TypeError or the like where they do not fit together, or hold
            anything beside a model.

    Raises:
        InvalidRequest: The file is not such a model, or of another version.
    """
    try:
        with safe_open(Path(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata.pop("header"))
        right, found = header.pop("format") == form, header.pop("format_version")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_a_model("It is not a model that was saved by dpsynth.") from error
    if not right:
        raise _not_a_model("It is not a model of this kind.")
    if metadata or type(found) is not int or found != version:
        raise _not_a_model(f"This release reads format version {version} only.")
    try:
        return make(header, arrays)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _not_a_model("Its header and its arrays do not fit together.") from error


def form_of(path: str | os.PathLike[str]) -> str:
    """Return the format that a file says it has; empty if it says none."""
    try:
        with safe_open(Path(path), framework="numpy") as file:
            return str(json.loads((file.metadata() or {})["header"])["format"])
    except (SafetensorError, ValueError, KeyError, TypeError):
        return ""


def checked_array(
    values: NDArray[Any], shape: tuple[int, ...], dtype: type[np.floating[Any]]
) -> NDArray[Any]:
    """Return an array, if it has this shape and type and finite values; else ValueError."""
    if values.shape != shape or values.dtype != dtype or not np.isfinite(values).all():
        raise ValueError("an array has not the shape that the header says")
    return values


def _not_a_model(limit: str) -> InvalidRequest:
    return InvalidRequest(
        "A file was to be read as a model.", limit, "Give a file written by a model's save()."
    )
