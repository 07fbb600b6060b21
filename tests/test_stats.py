"""Column statistics: one streaming pass equals numpy in float64, however the frames are split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtool.errors import DataError
from vqtool.stats import ColumnStats, column_stats
from vqtool.store import MotionSet, create_motion


def frames(count: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    """Columns of scales 0.01 to 100 and offsets -50 to 50."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, dim)) * np.geomspace(0.01, 100, dim) + np.linspace(-50, 50, dim)).astype("f4")


def column(values: np.ndarray) -> ColumnStats:
    return ColumnStats.of(values.astype("f4")[:, None])


def write(path: Path, *clips: np.ndarray) -> Path:
    with create_motion(path, dim=clips[0].shape[1], fps=30) as motion:
        for number, clip in enumerate(clips):
            motion.append(f"clip {number}", clip)
    return path


def test_a_column_worked_by_hand() -> None:
    # 1, 2, 3, 6: mean 3, squared deviations 4 + 1 + 0 + 9 = 14, standard deviation sqrt(14 / 4).
    stats = column(np.array([1.0, 2.0, 3.0, 6.0]))
    assert (stats.count, stats.mean[0], stats.squares[0], stats.low[0], stats.high[0]) == (4, 3.0, 14.0, 1.0, 6.0)
    assert stats.std[0] == pytest.approx(3.5**0.5, rel=1e-15)


def test_a_file_equals_numpy_in_float64_on_its_clips_laid_end_to_end(tmp_path: Path) -> None:
    clips = [frames(300, seed=1), frames(0), frames(1, seed=2), frames(77, seed=3)]
    whole = np.concatenate(clips).astype(np.float64)
    with MotionSet([write(tmp_path / "a.h5", *clips)]) as motion:
        stats = column_stats(motion, [0, 1, 2, 3])
    assert stats.count == 378
    np.testing.assert_allclose(stats.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.std, whole.std(0), rtol=1e-12)
    assert (stats.low == whole.min(0)).all() and (stats.high == whole.max(0)).all()


def test_only_the_chosen_clips_count(tmp_path: Path) -> None:
    with MotionSet([write(tmp_path / "a.h5", frames(10, seed=1), frames(20, seed=2))]) as motion:
        stats = column_stats(motion, [1])
    np.testing.assert_allclose(stats.mean, frames(20, seed=2).astype(np.float64).mean(0), rtol=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 200), max_size=8), order=st.randoms(use_true_random=False))
def test_merging_any_split_in_any_order_is_the_same(cuts: list[int], order: object) -> None:
    data = frames(200)
    parts = [ColumnStats.of(part) for part in np.split(data, sorted(cuts))]
    order.shuffle(parts)  # type: ignore[attr-defined]
    merged = ColumnStats.empty(4)
    for part in parts:
        merged = merged.merge(part)
    whole = data.astype(np.float64)
    assert merged.count == 200
    np.testing.assert_allclose(merged.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.std, whole.std(0), rtol=1e-12)
    assert (merged.low == whole.min(0)).all() and (merged.high == whole.max(0)).all()


def test_merging_changes_neither_part() -> None:
    one, two = ColumnStats.of(frames(5, seed=1)), ColumnStats.of(frames(7, seed=2))
    before = one.mean.copy(), one.squares.copy(), two.low.copy()
    one.merge(two)
    assert (one.mean == before[0]).all() and (one.squares == before[1]).all() and (two.low == before[2]).all()


def test_a_constant_column_gets_scale_1_and_is_marked() -> None:
    stats = ColumnStats.of(np.column_stack([np.full(50, 0.1), np.linspace(0, 1, 50)]).astype("f4"))
    assert stats.constant.tolist() == [True, False]
    assert stats.scale[0] == 1.0 and stats.scale[1] == stats.std[1]


def test_a_column_of_zeros_gets_scale_1() -> None:
    stats = column(np.zeros(9))
    assert stats.constant[0] and stats.scale[0] == 1.0 and stats.mean[0] == 0.0


@pytest.mark.parametrize("value", [1.0, -9.81, 1e6])
def test_a_column_that_moves_only_by_float32_rounding_is_constant(value: float) -> None:
    near = np.float32(value)
    stats = column(np.where(np.arange(100) % 2, near, np.nextafter(near, np.float32(np.inf))))
    assert stats.constant[0] and stats.scale[0] == 1.0


def test_a_tiny_column_about_zero_is_not_constant() -> None:
    stats = column(np.random.default_rng(0).normal(size=100) * 1e-9)
    assert not stats.constant[0] and stats.scale[0] == stats.std[0]


@pytest.mark.parametrize("splits", [1, 7])
def test_small_noise_on_a_large_offset_is_measured_rightly(splits: int) -> None:
    noise = np.random.default_rng(0).normal(scale=3.0, size=20_000)
    values = (1e6 + noise).astype("f4")
    stats = ColumnStats.empty(1)
    for part in np.array_split(values, splits):
        stats = stats.merge(column(part))
    assert not stats.constant[0]
    assert stats.std[0] == pytest.approx(values.astype(np.float64).std(), rel=1e-9)
    assert stats.std[0] == pytest.approx(3.0, rel=0.02)
    assert stats.mean[0] == pytest.approx(1e6, abs=0.1)


def test_a_column_is_constant_only_if_it_is_so_in_all_parts_together() -> None:
    stats = column(np.zeros(10)).merge(column(np.ones(10)))
    assert not stats.constant[0] and stats.std[0] == 0.5


def test_no_frames_at_all_give_finite_scales() -> None:
    stats = ColumnStats.of(np.zeros((0, 3), "f4")).merge(ColumnStats.empty(3))
    assert stats.count == 0 and stats.scale.tolist() == [1.0, 1.0, 1.0]


def test_a_single_frame_gives_scale_1() -> None:
    assert ColumnStats.of(frames(1)).scale.tolist() == [1.0] * 4


def test_nan_stops_the_statistics(tmp_path: Path) -> None:
    bad = frames(30)
    bad[12, 2] = np.nan
    with (
        MotionSet([write(tmp_path / "a.h5", frames(5), bad)]) as motion,
        pytest.raises(DataError, match=r"a\.h5:frames clip clip 1 frame 12: column 2 is nan"),
    ):
        column_stats(motion, [0, 1])


def test_a_small_motion_far_from_zero_is_no_constant_column() -> None:
    frames = np.full((100, 1), 1e6, np.float32) + np.linspace(-0.9, 0.9, 100, dtype=np.float32)[:, None]
    assert not ColumnStats.of(frames).constant[0]
