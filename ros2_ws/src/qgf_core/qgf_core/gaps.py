# SPDX-License-Identifier: Apache-2.0
"""Lost samples of an evenly sampled signal, filled so that its spectrum stays what it was.

A straight line over a lost sample takes away chatter: with a tenth of the samples lost at random, a quarter of the
sample rate read up to a fifth too low. Here each joint gets an autoregressive model of its own samples, and lost ones
take the values that this model makes likeliest, given all others on both sides (Janssen, Veldhuis and Vries, "Adaptive
interpolation of discrete-time signals that can be modeled as autoregressive processes", 1986); model and values in
turns. Sums of a few sines, chirps, movements and chatter up to Nyquist come back to well within 5 %. What nothing can
bring back is noise: a lost sample of it was independent of the others, so a share x of lost samples takes about x / 2
of its level.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from scipy import fft as scipy_fft
from scipy.linalg import lapack as scipy_lapack

from qgf_core.samples import Array, blocks

ORDER = 32
"""Of the model; less for short signals. Each sine takes two."""
SAMPLES_PER_ORDER = 6
SHORTEST = 24
"""Samples below which there is no model."""
MOST_LOST = 0.4
"""Share of lost samples above which there is no model."""
ROUNDS, FEWER_ROUNDS = 4, 2
"""Of model and values; fewer for more numbers than `MANY`, so that a live monitor's load stays bounded."""
MANY = 1 << 15
SETTLED = 1e-3
"""Change of the lost values in a round, over the signal's largest value, after which there is no other."""
REACH = 1.5
"""Lost values are no larger than this times the largest of the others."""
_LOADING = 1e-9
"""White noise added to the model, over the signal's power: keeps a sum of pure sines solvable."""


def fill_gaps(values: Array, missing: npt.NDArray[np.int_]) -> None:
    """Replaces the lost samples of (n, T), which hold a first guess (a straight line), in place.

    Where there is no model (a signal at rest, one too short, too much lost) the guess stays.

    :param missing: (M,), ascending; neither the first nor the last sample.
    """
    total = values.shape[1]
    if total < SHORTEST or not 0 < len(missing) <= MOST_LOST * total:
        return
    order = min(ORDER, total // SAMPLES_PER_ORDER)
    system = _System(missing, total, order)
    for some in blocks(values):
        _fill(values[some], missing, system, order, ROUNDS if values.size <= MANY else FEWER_ROUNDS)


def _fill(values: Array, missing: npt.NDArray[np.int_], system: _System, order: int, rounds: int) -> None:
    mean = values.mean(axis=1, keepdims=True)
    work = values - mean
    largest = np.abs(work).max(axis=1, keepdims=True)
    moves = np.flatnonzero(largest[:, 0] > 1e-12 * np.abs(mean[:, 0]))
    if not len(moves):
        return
    mean, largest = mean[moves], largest[moves]
    work = work[moves] / largest
    guess = work[:, missing]
    for _ in range(rounds):
        before = work[:, missing]
        with np.errstate(all="ignore"):  # where a joint's model breaks down its guess stays
            found = system.solve(work, _model(work, order))
        # The first model, made of straight lines too, may be far off: it may not put samples where none was near.
        work[:, missing] = np.where(np.isnan(found), guess, np.clip(found, -REACH, REACH))
        if np.abs(work[:, missing] - before).max() < SETTLED:
            break
    values[np.ix_(moves, missing)] = mean + largest * work[:, missing]


@functools.lru_cache(maxsize=8)
def _taper(total: int) -> Array:
    """Flat in the middle half, with the flanks of a cosine: without flanks the ends' jump drowns weak chatter."""
    edge = total // 4
    flank = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    return np.concatenate([flank, np.ones(total - 2 * edge), flank[::-1]])


def _model(work: Array, order: int) -> Array:
    """Prediction error filters (n, order + 1), the first coefficient 1, of (n, T): Levinson's recursion on the
    autocorrelation of the tapered signal."""
    total = work.shape[1]
    size = scipy_fft.next_fast_len(total + order + 1, real=True)
    bins = scipy_fft.rfft(work * _taper(total), size, axis=1)
    lags: Array = scipy_fft.irfft(np.square(bins.real) + np.square(bins.imag), size, axis=1)[:, :order + 1]
    lags[:, 0] *= 1.0 + _LOADING
    filters = np.zeros((len(work), order + 1))
    filters[:, 0] = 1.0
    error = lags[:, 0].copy()
    for k in range(1, order + 1):
        reflection = -np.einsum("ij,ij->i", filters[:, :k], lags[:, k:0:-1]) / error
        filters[:, 1:k + 1] += reflection[:, None] * filters[:, k - 1::-1]
        error *= 1.0 - np.square(reflection)
    return filters


class _System:
    """Least squares of the model's errors over the lost samples: a banded matrix with few bands, as only lost samples
    within one filter's length of each other stand in one equation. Which ones do is the same for all joints.

    Errors whose filter reaches beyond either end are left out.
    """

    def __init__(self, missing: npt.NDArray[np.int_], total: int, order: int) -> None:
        self._missing, self._total, self._order = missing, total, order
        bands = [np.zeros(len(missing), dtype=np.int64)]
        while len(bands) < len(missing):
            apart = missing[len(bands):] - missing[:-len(bands)]
            if apart.min() > order:
                break
            bands.append(np.concatenate([apart, np.full(len(bands), order + 1)]))
        self._apart = np.minimum(np.array(bands), order + 1)  # (bands, M); order + 1: not in one equation
        self._edges = [self._edge(np.arange(order)), self._edge(np.arange(total, total + order))]

    def _edge(self, left_out: npt.NDArray[np.int_]) -> tuple[slice, npt.NDArray[np.int_]]:
        """The lost samples that stand in errors that are left out, and their coefficients' places there."""
        near = np.flatnonzero((self._missing >= left_out[0] - self._order) & (self._missing <= left_out[-1]))
        some = slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0)
        place = left_out[:, None] - self._missing[some]
        return some, np.where((place >= 0) & (place <= self._order), place, self._order + 1)

    def solve(self, work: Array, filters: Array) -> Array:
        """Values (n, M) of the lost samples of (n, T)."""
        order, total, missing = self._order, self._total, self._missing
        known = work.copy()
        known[:, missing] = 0.0
        size = scipy_fft.next_fast_len(total + order, real=True)
        response = scipy_fft.rfft(filters, size, axis=1)
        errors = scipy_fft.irfft(scipy_fft.rfft(known, size, axis=1) * response, size, axis=1)
        errors[:, :order] = 0.0
        errors[:, total:] = 0.0
        right = -scipy_fft.irfft(scipy_fft.rfft(errors, size, axis=1) * response.conj(), size, axis=1)[:, missing]
        padded = np.concatenate([filters, np.zeros((len(filters), 1))], axis=1)
        square = np.square(response.real) + np.square(response.imag)
        product = scipy_fft.irfft(square, size, axis=1)[:, :order + 2].copy()
        product[:, order + 1] = 0.0
        matrix = product[:, self._apart]  # (n, bands, M)
        for some, place in self._edges:
            part = padded[:, place]
            gone = part.transpose(0, 2, 1) @ part
            for band in range(min(matrix.shape[1], gone.shape[1])):
                matrix[:, band, some.start:some.stop - band] -= np.diagonal(gone, -band, 1, 2)
        matrix[:, 0] *= 1.0 + _LOADING
        found = np.empty_like(right)
        for row in range(len(work)):
            _, solution, failed = scipy_lapack.dpbsv(matrix[row], right[row], lower=1)
            found[row] = np.nan if failed else solution
        return found
