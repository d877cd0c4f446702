from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roofseg.sliding_window.windows import Axis, Blend

lengths = st.integers(1, 90)
sizes = st.integers(4, 32)
overlaps = st.floats(0, 0.5)


def blended(
    image: npt.NDArray[np.float32], rows: Axis, cols: Axis, first: int, end: int
) -> npt.NDArray[np.float32]:
    """Cut an image into windows, and blend them to columns ``first`` to ``end`` again."""
    blend, finished = Blend(rows, cols, first, end), []
    for row in range(len(rows.starts)):
        for col in cols.covering(first, end):
            blend.add(row, col, image[np.ix_(rows.pixels(row), cols.pixels(col))])
        finished.append(blend.finish(row))
    return np.concatenate(finished)


class TestAxis:
    @given(lengths, sizes, overlaps)
    def test_windows_cover_the_raster_and_reach_equally_beyond_it(
        self, length: int, size: int, overlap: float
    ) -> None:
        axis = Axis(length, size, overlap)
        shared = round(size * overlap)
        before, after = -axis.starts[0], axis.starts[-1] + size - length
        assert before >= shared // 2
        assert after - before in (0, 1)
        for one, next_ in itertools.pairwise(axis.starts):
            assert 0 < next_ - one <= size - shared

    def test_there_are_no_more_windows_than_needed(self) -> None:
        assert len(Axis(5000, 512, 0.25).starts) == 14  # 13.02 steps of 384
        assert Axis(64, 64, 0).starts == (0,)
        assert Axis(128, 64, 0).starts == (0, 64)

    @given(lengths, sizes, overlaps)
    def test_the_raster_is_reflected_beyond_its_ends(
        self, length: int, size: int, overlap: float
    ) -> None:
        axis = Axis(length, size, overlap)
        first, end = axis.starts[0], axis.starts[-1] + size
        padded = np.pad(np.arange(length), (-first, end - length), mode="reflect")
        for place, start in enumerate(axis.starts):
            expected = padded[start - first : start - first + size]
            assert axis.pixels(place).tolist() == expected.tolist()
            origin = int(expected.min())
            assert np.arange(origin, length)[axis.index(place, origin)].tolist() == (
                expected.tolist()
            )

    @given(lengths, sizes, overlaps)
    def test_the_weights_of_a_pixel_sum_to_one(
        self, length: int, size: int, overlap: float
    ) -> None:
        axis = Axis(length, size, overlap)
        total = np.zeros(axis.starts[-1] + size - axis.starts[0])
        for start, weights in zip(axis.starts, axis.weights, strict=True):
            assert (weights > 0).all()
            total[start - axis.starts[0] :][:size] += weights
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-12)

    def test_weights_fall_smoothly_from_one_window_to_the_next(self) -> None:
        left, right = Axis(96, 64, 0.5).weights[:2]
        assert left[32:] + right[:32] == pytest.approx(1)
        np.testing.assert_allclose(right[:32], np.sin(np.pi * (np.arange(32) + 0.5) / 64) ** 2)

    @given(lengths, sizes, overlaps)
    def test_rows_are_finished_when_no_later_window_shows_them(
        self, length: int, size: int, overlap: float
    ) -> None:
        axis = Axis(length, size, overlap)
        done = [axis.finished(place) for place in range(-1, len(axis.starts))]
        assert done[0] == 0
        assert done[-1] == length
        for place, end in enumerate(done[1:-1]):
            assert end == max(axis.starts[place + 1], 0)

    @given(lengths, sizes, st.data())
    def test_covering_windows_are_those_that_show_a_pixel(
        self, length: int, size: int, data: st.DataObject
    ) -> None:
        axis = Axis(length, size)
        first = data.draw(st.integers(0, length - 1))
        end = data.draw(st.integers(first + 1, length))
        wanted = set(range(first, end))
        holding = [
            place
            for place, start in enumerate(axis.starts)
            if wanted & set(range(start, start + size))
        ]
        assert list(axis.covering(first, end)) == holding


class TestBlend:
    @given(
        hnp.arrays(
            np.float32,
            st.tuples(lengths, lengths),
            elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
            fill=st.just(np.float32(0.1)),
        ),
        sizes,
        overlaps,
        st.data(),
    )
    def test_values_that_all_windows_agree_on_are_exact(
        self,
        image: npt.NDArray[np.float32],
        size: int,
        overlap: float,
        data: st.DataObject,
    ) -> None:
        rows, cols = (Axis(length, size, overlap) for length in image.shape)
        first = data.draw(st.integers(0, image.shape[1] - 1))
        end = data.draw(st.integers(first + 1, image.shape[1]))
        found = blended(image, rows, cols, first, end)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, image[:, first:end])

    def test_a_strip_equals_that_part_of_the_raster_bit_for_bit(self) -> None:
        rng = np.random.default_rng(0)
        rows, cols = Axis(70, 32), Axis(100, 32)
        results = rng.random((len(rows.starts), len(cols.starts), 32, 32), np.float32)

        def strip(first: int, end: int) -> npt.NDArray[np.float32]:
            blend, finished = Blend(rows, cols, first, end), []
            for row in range(len(rows.starts)):
                for col in cols.covering(first, end):
                    blend.add(row, col, results[row, col])
                finished.append(blend.finish(row))
            return np.concatenate(finished)

        whole = strip(0, 100)
        assert whole.shape == (70, 100)
        parts = np.concatenate([strip(0, 17), strip(17, 80), strip(80, 100)], axis=1)
        np.testing.assert_array_equal(parts, whole)

    def test_channels_are_blended_each_on_its_own(self) -> None:
        rows, cols = Axis(70, 32, 0.25), Axis(100, 32, 0.25)
        image = np.random.default_rng(0).random((2, 70, 100)).astype(np.float32)
        blend, finished = Blend(rows, cols, 20, 90, channels=(2,)), []
        for row in range(len(rows.starts)):
            for col in cols.covering(20, 90):
                window = np.ix_(range(2), rows.pixels(row), cols.pixels(col))
                blend.add(row, col, image[window])
            finished.append(blend.finish(row))
        both = np.concatenate(finished, axis=1)
        for channel in range(2):
            alone = blended(image[channel], rows, cols, 20, 90)
            np.testing.assert_array_equal(both[channel], alone)

    def test_different_windows_are_blended_without_a_seam(self) -> None:
        rows, cols = Axis(64, 64, 0), Axis(300, 64, 0.5)
        blend = Blend(rows, cols, 0, 300)
        for col in range(len(cols.starts)):
            blend.add(0, col, np.full((64, 64), col % 2, np.float32))
        found = blend.finish(0)
        steepest = np.pi / 2 / 28  # of a Hann flank between neighbours some 28 px apart
        assert np.abs(np.diff(found, axis=1)).max() < steepest
        assert found.max() - found.min() > 0.9
