"""Verdicts on statements, by intervals: a test of difference and one of equivalence, with margins written down beforehand.

A statement holds in some regions of a number and fails in others, which begin where it is wrong by as much as matters: the
margin. A run *agrees* with it where the whole interval lies in a region where it holds, and else *disagrees* where the whole
interval lies where it fails; otherwise one *cannot tell*. Intervals of coverage c err on a given side in (1 − c)/2 of cases,
so where the truth lies outside the regions a wrong 'agrees' or 'disagrees' is that rare. Noise alone therefore reads *cannot
tell* when there is much of it and, for a statement that something changes, *disagrees* when there is so little that no change
as large as the margin is left (two one-sided tests, Schuirmann 1987, doi:10.1007/BF01068419).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

AGREES, DISAGREES, OPEN, UNMEASURED = "agrees", "disagrees", "cannot tell", "not measured"
Region = tuple[float, float]


class Regions(NamedTuple):
    """Open intervals in which a statement holds, and in which it fails; where both, it holds."""

    holds: tuple[Region, ...]
    fails: tuple[Region, ...]


def above(level: float, margin: float) -> Regions:
    """The number exceeds `level`; wrong where it does not do so by the margin."""
    return Regions(((level, math.inf),), ((-math.inf, level + margin),))


def below(level: float, margin: float) -> Regions:
    """The number is less than `level`; wrong where it is not so by the margin."""
    return Regions(((-math.inf, level),), ((level - margin, math.inf),))


def within(low: float, high: float) -> Regions:
    """The number lies between two margins; wrong where it lies beyond one."""
    return Regions(((low, high),), ((-math.inf, low), (high, math.inf)))


def apart(level: float, margin: float) -> Regions:
    """The number differs from `level`, either way; wrong where it does not do so by the margin."""
    return Regions(((-math.inf, level), (level, math.inf)), ((level - margin, level + margin),))


def judge(low: float, high: float, regions: Regions) -> str:
    """The verdict on a statement from an interval; *not measured* where it has no ends."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return UNMEASURED

    def inside(among: Sequence[Region]) -> bool:
        return any(start < low and high < end for start, end in among)

    return AGREES if inside(regions.holds) else DISAGREES if inside(regions.fails) else OPEN


def together(verdicts: Sequence[str]) -> str:
    """The verdict on a claim of several statements: wrong if one is, right if all are; what was not measured is not right."""
    if DISAGREES in verdicts:
        return DISAGREES
    told = set(verdicts)
    return told.pop() if len(told) == 1 else OPEN
