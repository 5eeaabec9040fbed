import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from MIMSegment.Logic import accumulator
from MIMSegment.Logic.batching import BatchSize
from MIMSegment.Logic.engine import predict_planes, segment
from MIMSegment.Logic.errors import Cancelled, NotANumber, OutOfMemory, PackageError
from MIMSegment.Logic.spec import ModelSpec, Normalization, Preprocessing
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.windows import gaussian_weights, weight_sum, window_starts
from tiny_package import threshold_spec


def threshold(tile):
    return np.concatenate([0.5 - tile[:, :1], tile[:, :1] - 0.5], axis=1)


def box_in(geometry: Geometry) -> tuple[Volume, np.ndarray]:
    array = np.zeros((1, *geometry.shape), np.float32)
    array[0, 5:20, 10:40, 8:30] = 1000
    return Volume(array, geometry), array[0] > 500


@pytest.mark.parametrize("seed", range(5))
def test_result_lies_on_the_oblique_input_grid_voxel_by_voxel(seed):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    geometry = Geometry.from_parts((37, 50, 41), (3.1, 0.9, 1.1), (5, 6, 7), rotation)
    volume, truth = box_in(geometry)
    result = segment(volume, threshold_spec(patch=(16, 24, 24)), threshold)
    assert np.array_equal(result.labels == 3, truth)
    assert result.geometry is volume.geometry
    expected = truth.sum() * 3.1 * 0.9 * 1.1 / 1000
    assert result.volumes_ml() == {3: pytest.approx(expected)}


@pytest.mark.parametrize("spacing", [(2.0, 1.5, 1.5), (3.1, 1.0, 0.7), (4.5, 0.9, 1.1)])
def test_result_at_another_working_spacing_stays_within_a_voxel_of_the_truth(spacing):
    from scipy.ndimage import binary_dilation, binary_erosion

    volume, truth = box_in(Geometry.from_parts((37, 50, 41), (3.1, 0.9, 1.1)))
    found = segment(volume, threshold_spec(spacing=spacing), threshold).labels == 3
    assert not (found & ~binary_dilation(truth, np.ones((3, 3, 3)))).any()
    assert not (binary_erosion(truth, np.ones((3, 3, 3))) & ~found).any()


def test_image_smaller_than_the_patch_is_padded_and_cropped_back():
    volume, truth = box_in(Geometry.from_parts((37, 50, 41), (1, 1, 1)))
    result = segment(volume, threshold_spec(patch=(64, 40, 64)), threshold)
    assert np.array_equal(result.labels == 3, truth)


def test_slabs_equal_whole_volume_accumulation_with_gaussian_weights():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 23, 31, 40)).astype(np.float32)
    spec = threshold_spec(patch=(8, 16, 16))

    def depends_on_position_in_window(tile):
        ramp = np.arange(16, dtype=np.float32)
        return np.concatenate([tile * ramp, tile[:, :, ::-1] + ramp[:, None]], axis=1)

    planes = list(predict_planes(image, spec, [depends_on_position_in_window]))
    total, weights = np.zeros((2, 23, 31, 40)), np.zeros((23, 31, 40))
    gauss = (
        gaussian_weights(8)[:, None, None] * gaussian_weights(16)[:, None] * gaussian_weights(16)
    )
    for z in window_starts(23, 8, 0.5):
        for y in window_starts(31, 16, 0.5):
            for x in window_starts(40, 16, 0.5):
                block = (slice(z, z + 8), slice(y, y + 16), slice(x, x + 16))
                tile = image[(None, slice(None), *block)]
                total[(slice(None), *block)] += depends_on_position_in_window(tile)[0] * gauss
                weights[block] += gauss
    assert np.allclose(np.stack(planes, axis=1), total / weights, atol=1e-4)


def test_windows_cover_every_voxel_and_their_weights_never_vanish():
    for size, patch in ((100, 32), (33, 32), (32, 32), (500, 96)):
        starts = window_starts(size, patch, 0.5)
        assert starts[0] == 0 and starts[-1] + patch == size
        assert weight_sum(size, patch, starts).min() > 0


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("patch", [1, 2, 3, 8])
def test_no_window_is_calculated_twice(patch, overlap):
    for size in (patch, patch + 1, 20, 23, 100):
        starts = window_starts(size, patch, overlap)
        assert starts == sorted(set(starts))
        assert starts[-1] + patch == max(size, patch)


def test_mirroring_averages_the_flipped_predictions():
    spec = ModelSpec(**{**threshold_spec().__dict__, "mirror_axes": (0, 2), "patch": (4, 4, 4)})
    image = np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32)

    def ramp(tile):
        return np.concatenate([tile * 0, tile * 0 + np.arange(4, dtype=np.float32)], axis=1)

    for plane in predict_planes(image, spec, [ramp]):
        assert np.allclose(plane[1], 1.5)


def test_regions_paint_in_order_so_that_inner_ones_win():
    spec = ModelSpec(
        inputs=threshold_spec().inputs,
        preprocessing=Preprocessing((None,) * 3, (Normalization("none"),)),
        patch=(4, 4, 4),
        channel_labels=(1, 2, 3),
        head="regions",
    )
    image = np.zeros((1, 4, 4, 4), np.float32)
    image[0, :, :, 1], image[0, :, :, 2], image[0, :, :, 3] = 1, 2, 3
    volume = Volume(image, Geometry.from_parts((4, 4, 4), (1, 1, 1)))
    nested = lambda tile: np.concatenate([tile - 0.5, tile - 1.5, tile - 2.5], axis=1)  # noqa: E731
    assert np.array_equal(segment(volume, spec, nested).labels[0, 0], [0, 1, 2, 3])


def test_labels_above_255_do_not_wrap_around():
    spec = ModelSpec(**{**threshold_spec().__dict__, "channel_labels": (0, 530)})
    volume, truth = box_in(Geometry.from_parts((37, 50, 41), (1, 1, 1)))
    assert segment(volume, spec, threshold).volumes_ml() == {530: pytest.approx(truth.sum() / 1000)}


def test_progress_is_exact_and_cancel_stops_between_windows():
    volume, _ = box_in(Geometry.from_parts((37, 50, 41), (1, 1, 1)))
    seen = []
    segment(volume, threshold_spec(), threshold, lambda done, total: seen.append((done, total)))
    total = seen[0][1]
    assert seen == [(n + 1, total) for n in range(total)]
    calls = []
    with pytest.raises(Cancelled):
        segment(
            volume,
            threshold_spec(),
            threshold,
            lambda *s: calls.append(s),
            cancelled=lambda: len(calls) >= 3,
        )
    assert len(calls) == 3


def test_wrong_number_of_channels_is_a_package_error():
    volume, _ = box_in(Geometry.from_parts((37, 50, 41), (1, 1, 1)))
    with pytest.raises(PackageError, match="returns 1 channels"):
        segment(volume, threshold_spec(), lambda tile: tile)
    with pytest.raises(PackageError, match="needs 3"):
        segment(volume, threshold_spec(inputs=3), threshold)


def test_a_network_that_returns_another_size_is_a_package_error():
    volume = Volume(np.ones((1, 8, 16, 16)), Geometry.from_parts((8, 16, 16), (2, 1, 1)))
    halved = lambda tile: np.concatenate([tile, tile], axis=1)[..., ::2]  # noqa: E731
    with pytest.raises(PackageError, match="returns 8 × 16 × 8 voxels for 8 × 16 × 16"):
        segment(volume, threshold_spec(), halved)


def test_an_ensemble_averages_the_logits_of_its_networks():
    volume, truth = box_in(Geometry.from_parts((37, 50, 41), (1, 1, 1)))
    against = lambda tile: -2 * threshold(tile)  # noqa: E731
    outvoted = segment(volume, threshold_spec(), [threshold, against])
    assert np.array_equal(outvoted.labels == 3, ~truth)
    result = segment(volume, threshold_spec(), [threshold, threshold, against, threshold])
    assert np.array_equal(result.labels == 3, truth)


def test_a_2d_network_sees_slices():
    seen = []

    def by_slice(tile):
        seen.append(tile.shape)
        return threshold(tile)

    volume, truth = box_in(Geometry.from_parts((37, 50, 41), (3, 1, 1)))
    spec = replace(threshold_spec(patch=(1, 32, 32)), dims=2)
    result = segment(volume, spec, by_slice, batch=BatchSize(1))
    assert np.array_equal(result.labels == 3, truth)
    in_plane = len(window_starts(50, 32, 0.5)) * len(window_starts(41, 32, 0.5))
    assert seen == [(1, 1, 32, 32)] * (37 * in_plane)  # each slice once


def test_only_the_wanted_structures_are_kept():
    volume, truth = box_in(Geometry.from_parts((37, 50, 41), (1, 1, 1)))
    assert segment(volume, threshold_spec(), threshold, wanted=[7]).volumes_ml() == {}
    result = segment(volume, threshold_spec(), threshold, wanted=[3])
    assert np.array_equal(result.labels == 3, truth)


def test_windows_of_air_are_not_given_to_the_network_and_count_as_done():
    volume, truth = box_in(Geometry.from_parts((37, 50, 90), (1, 1, 1)))
    calls, seen = [], []

    def counting(tile):
        calls.append(1)
        return threshold(tile)

    spec = replace(threshold_spec(), empty_below=0.1)
    result = segment(volume, spec, counting, lambda done, total: seen.append((done, total)))
    assert np.array_equal(result.labels == 3, truth)
    assert len(calls) < seen[-1][1] == seen[-1][0]


def test_out_of_memory_makes_the_batch_smaller_and_changes_nothing():
    volume, truth = box_in(Geometry.from_parts((37, 50, 41), (1, 1, 1)))
    sizes, told = [], []

    def small_device(tile):
        sizes.append(len(tile))
        if len(tile) > 2:
            raise OutOfMemory("no room")
        return threshold(tile)

    batch = BatchSize(limit=8, report=told.append, size=8)
    result = segment(volume, threshold_spec(), small_device, batch=batch)
    assert np.array_equal(result.labels == 3, truth)
    assert sizes[:3] == [8, 4, 2] and max(sizes[3:]) <= 2
    assert told == ["Little memory: now 4 parts at once.",
                    "Little memory: now 2 parts at once."]  # fmt: skip
    with pytest.raises(OutOfMemory):
        segment(volume, threshold_spec(), lambda tile: small_device(np.repeat(tile, 3, axis=0)))


TURNED = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


@pytest.mark.parametrize("head", ["softmax", "regions"])
@pytest.mark.parametrize("direction", [np.eye(3), TURNED], ids=["straight", "oblique"])
def test_doubt_is_found_where_the_network_hesitates(head, direction):
    array = np.zeros((1, 40, 64, 64), np.float32)
    array[0, 10:30, 10:50, 10:50] = 1000
    array[0, 18:22, 28:32, 28:32] = 520  # a hesitation amid a certain structure
    geometry = Geometry.from_parts((40, 64, 64), (2, 2, 2), (10, 20, 30), direction)
    volume, spec = Volume(array, geometry), threshold_spec(patch=(16, 32, 32))
    first = 0
    if head == "regions":
        spec, first = replace(spec, head=head, channel_labels=(3,)), 1

    def steep(tile):
        return 20 * threshold(tile)[:, first:]

    result = segment(volume, spec, steep)
    worst = result.doubtful[0]
    middle = (geometry.ijk_to_lps @ [29.5, 29.5, 19.5, 1])[:3]
    assert np.abs(np.array(worst.position) - middle).max() <= 6
    assert worst.label == 3 and worst.doubtful_ml > 0
    assert len(result.doubtful) <= 20
    assert 0.98 < result.confidence[3] < 1.0
    certain = segment(volume, spec, lambda t: 500 * threshold(t)[:, first:])
    assert certain.doubtful == () and certain.confidence[3] > result.confidence[3]
    unasked = segment(volume, spec, steep, wanted=[7])
    assert unasked.doubtful == () and unasked.confidence == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_do_not_pass_for_background(value):
    def overflowing(tile):
        logits = np.concatenate([-tile, tile], axis=1)
        logits[..., 3:5, :] = value
        return logits

    array = np.random.default_rng(0).random((1, 10, 18, 18), np.float32)
    volume = Volume(array, Geometry.from_parts(array.shape[1:], (2, 1, 1)))
    with pytest.raises(NotANumber, match="no numbers; choose float32"):
        segment(volume, threshold_spec(), overflowing)


def test_peak_memory_above_the_labels_does_not_grow_with_the_number_of_slices():
    def peak(slices: int) -> int:
        array = np.zeros((1, slices, 64, 64), np.float32)
        array[0, 5:, 10:40, 8:30] = 1000
        volume = Volume(array, Geometry.from_parts(array.shape[1:], (2, 1, 1)))
        spec = threshold_spec(spacing=(2, 1.2, 1.2), patch=(16, 48, 48))
        spec = replace(spec, channel_labels=tuple(range(30)))

        def wide(tile):
            return np.repeat(threshold(tile), 15, axis=1)

        tracemalloc.start()
        result = segment(volume, spec, wide, threads=1)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest - result.labels.nbytes

    assert peak(160) < 1.15 * peak(40)


def test_sums_of_a_network_in_half_precision_take_half_the_memory_and_lose_no_label():
    class Constant:
        precision = "bfloat16"

        def __call__(self, tile):
            return np.full((1, 2, *tile.shape[2:]), 10.0, np.float32)

    image, spec = np.zeros((1, 48, 64, 64), np.float32), threshold_spec(patch=(32, 32, 32))
    planes = list(predict_planes(image, spec, [Constant()]))
    assert 0 < np.abs(np.stack(planes) - 10).max() < 0.05  # float32 would be exact to 1e-5
    exact = list(predict_planes(image, spec, [Constant().__call__]))
    assert np.abs(np.stack(exact) - 10).max() < 1e-4
    mixed = list(predict_planes(image, spec, [Constant(), Constant().__call__]))
    assert np.array_equal(mixed, exact)


def test_very_large_sums_are_in_half_precision_whatever_the_network(monkeypatch):
    monkeypatch.setattr(accumulator, "_HALF_PRECISION_ABOVE", 0)
    image = np.zeros((1, 48, 64, 64), np.float32)

    def constant(tile):
        return np.full((1, 2, *tile.shape[2:]), 10.0, np.float32)

    for plane in predict_planes(image, threshold_spec(patch=(32, 32, 32)), [constant]):
        assert np.abs(plane - 10).max() < 0.05


@pytest.mark.parametrize("threads", [1, 3])
def test_number_of_threads_changes_no_voxel(threads):
    geometry = Geometry.from_parts((30, 45, 50), (2.5, 0.7, 0.9))
    volume = Volume(np.random.default_rng(0).normal(500, 300, (1, *geometry.shape)), geometry)
    spec = threshold_spec(patch=(16, 32, 32))
    expected = segment(volume, spec, threshold).labels
    assert 0 < (expected > 0).mean() < 1
    assert np.array_equal(segment(volume, spec, threshold, threads=threads).labels, expected)
