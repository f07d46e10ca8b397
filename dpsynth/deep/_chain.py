"""The chain rule in numpy: records drawn, or weighed, one column after the other.

Sums of logits and of hidden units are carried along, so a column costs one row of weights for each
record, and what a mask would hide is never read: a column's sums hold only the columns before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.deep._layout import Layout

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]

_CELLS = 1 << 22  # of sums in memory at once: 16 MiB
_PROPOSALS = 16  # drawn for each record that is to have given codes
_LEAST_PROPOSALS = 4096


@dataclass(frozen=True, eq=False)
class Chain:
    """A network's arrays, as the layout names and shapes them.

    Attributes:
        layout: The layout.
        maps: For each column in its order, int64 (size,): the coarse code it is read by.
        arrays: Its arrays, float32.
    """

    layout: Layout
    maps: Sequence[NDArray[np.int64]]
    arrays: Mapping[str, Floats]

    def draw(self, n: int, given: Mapping[int, int], rng: np.random.Generator) -> Codes:
        """Draw records, int32 (n, columns) in the order of the chain.

        Args:
            n: How many.
            given: For places in that order, the code that all of them have.
            rng: Source of the sampling.
        """
        # Codes that come first are simply set; those after a drawn one weigh what was drawn.
        weighed = any(place not in given for place in range(max(given, default=-1)))
        many = _PROPOSALS if weighed else 1
        rows = max(_rows_at_once(self.layout) // many, 64)
        found = np.empty((n, len(self.layout.sizes)), dtype=np.int32)
        for start in range(0, n, rows):
            count = min(rows, n - start)
            walk = _Walk.of(self, max(count * many, _LEAST_PROPOSALS) if weighed else count)
            last = max(given, default=-1) if weighed else -1
            for place in range(len(self.layout.sizes)):
                code = given.get(place)
                walk.step(rng.random(walk.size) if code is None else code)
                if place == last:
                    walk = walk.resampled(count, rng.random())
            found[start : start + count] = walk.codes
        return found

    def log_probability(self, codes: Codes) -> NDArray[np.float64]:
        """Return the natural logarithm of each record's probability, float64 (n,).

        Args:
            codes: int32 (n, columns), in the order of the chain.
        """
        found = np.empty(len(codes))
        rows = _rows_at_once(self.layout)
        for start in range(0, len(codes), rows):
            part = codes[start : start + rows]
            walk = _Walk.of(self, len(part))
            for place in range(part.shape[1]):
                walk.step(part[:, place])
            found[start : start + rows] = walk.weights
        return found


@dataclass(eq=False)
class _Walk:
    """Records of which the first columns have their codes.

    Attributes:
        chain: The network.
        size: How many records there are.
        logits: For each group of columns that is not done, float32 (size, width).
        units: Sums of the hidden units, float32 (size, hidden).
        codes: int32 (size, columns).
        weights: Logarithm of the probability of the codes that were not drawn, float64 (size,).
        done: How many columns have their codes.
    """

    chain: Chain
    size: int
    logits: list[Floats]
    units: Floats
    codes: Codes
    weights: NDArray[np.float64]
    done: int = 0

    @classmethod
    def of(cls, chain: Chain, size: int) -> _Walk:
        layout, arrays = chain.layout, chain.arrays
        heads = [arrays[f"head_{i}"] for i in range(len(layout.groups))]
        units = np.zeros((size, layout.hidden), dtype=np.float32)
        if layout.hidden:
            units += arrays["inner_bias"]
        codes = np.zeros((size, len(layout.sizes)), dtype=np.int32)
        logits = [np.tile(head[0], (size, 1)) for head in heads]
        return cls(chain, size, logits, units, codes, np.zeros(size))

    def step(self, chosen: int | NDArray[np.float64] | Codes) -> None:
        """Give the next column its codes.

        Args:
            chosen: One code, or one a record, which then weigh; or floats (size,) uniform on
                [0, 1), from which they are drawn.
        """
        shares = self._log_shares()
        if isinstance(chosen, np.ndarray) and chosen.dtype.kind == "f":
            sums = np.exp(shares, out=shares).cumsum(1)
            below = sums <= (chosen * sums[:, -1])[:, None]
            codes = np.minimum(below.sum(1), shares.shape[1] - 1).astype(np.int32)
        else:
            codes = np.broadcast_to(np.asarray(chosen, dtype=np.int32), (self.size,))
            self.weights += shares[np.arange(self.size), codes]
        self._take(codes)

    def resampled(self, count: int, offset: float) -> _Walk:
        """Return ``count`` of the records, each about as often as its weight says."""
        # At equal distances, so a record of k times the mean weight comes k times, give or take 1.
        sums = np.exp(self.weights - self.weights.max()).cumsum()
        wanted = (offset + np.arange(count)) * (sums[-1] / count)
        chosen = np.minimum(np.searchsorted(sums, wanted, side="right"), self.size - 1)
        logits = [part[chosen] if part.size else part for part in self.logits]
        weights, codes = np.zeros(count), self.codes[chosen]
        return _Walk(self.chain, count, logits, self.units[chosen], codes, weights, self.done)

    def _log_shares(self) -> NDArray[np.float64]:
        """Log-probabilities of the next column's codes, float64 (size, codes)."""
        layout, place = self.chain.layout, self.done
        number, group = next((i, g) for i, g in enumerate(layout.groups) if place < g.stop)
        start = layout.starts[place] - layout.starts[group.start]
        mine = slice(start, start + layout.sizes[place])
        logits = self.logits[number][:, mine].astype(np.float64)
        if count := layout.units(place):
            outer = self.chain.arrays[f"outer_{number}"][mine, :count]
            logits += np.maximum(self.units[:, :count], 0) @ outer.T
        logits -= logits.max(1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(1, keepdims=True))
        return logits

    def _take(self, codes: Codes) -> None:
        layout, place = self.chain.layout, self.done
        self.codes[:, place] = codes
        self.done += 1
        rows = layout.reads[place] + self.chain.maps[place][codes]
        for i, group in enumerate(layout.groups):
            if group.stop <= self.done:
                self.logits[i] = self.logits[i][:0]
            else:
                self.logits[i] += self.chain.arrays[f"head_{i}"][1 + rows]
        later = layout.units(place)  # those before see fewer columns
        if later < layout.hidden:
            self.units[:, later:] += self.chain.arrays["inner"][rows, later:]


def _rows_at_once(layout: Layout) -> int:
    return max(_CELLS // (layout.starts[-1] + layout.hidden), 64)
