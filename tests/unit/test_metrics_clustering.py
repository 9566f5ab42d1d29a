"""Clustering metrics: scikit-learn's values, and what they must be where the answer is known."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, silhouette_score
from sklearn.preprocessing import normalize, scale

from avex._core.errors import ConfigError
from avex.metrics import clustering, clustering_scores


def blobs(classes=4, each=15, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    centres = 10 * np.eye(classes)
    return (centres[y] + spread * rng.normal(size=(len(y), classes))).astype(np.float32), y


def test_blobs_far_apart_are_found_whatever_the_labels_are_called():
    x, y = blobs()
    found = clustering_scores(x, 90 - 7 * y)
    assert found.values["clustering_ari"] == 1
    assert found.values["clustering_nmi"] == pytest.approx(1)
    assert found.values["clustering_best_k"] == 4
    assert found.values["clustering_ari_best"] == 1


def test_values_are_those_of_scikit_learn():
    x, y = blobs(spread=5.0, seed=1)
    found = clustering_scores(x, y, seed=3, best_k=False, scaling="none")
    expected = KMeans(4, n_init=10, max_iter=300, random_state=3).fit_predict(x)
    np.testing.assert_array_equal(found.assigned, expected)
    assert found.values["clustering_ari"] == adjusted_rand_score(y, expected)
    assert found.values["clustering_ami"] == adjusted_mutual_info_score(y, expected)
    assert found.values["clustering_silhouette"] == pytest.approx(silhouette_score(x, expected))


@pytest.mark.parametrize(("scaling", "scaler"), [("unit", normalize), ("standard", scale)])
def test_scaling_is_that_of_scikit_learn(scaling, scaler):
    x, y = blobs(spread=5.0, seed=2)
    x *= np.linspace(1, 30, len(x), dtype=np.float32)[:, None]
    found = clustering_scores(x, y, best_k=False, scaling=scaling)
    scaled = scaler(x.astype(float)).astype(np.float32)
    expected = KMeans(4, n_init=10, max_iter=300, random_state=0).fit_predict(scaled)
    assert found.values["clustering_ari"] == adjusted_rand_score(y, expected)


def test_loud_and_soft_are_one_cluster_by_direction_only():
    x, y = blobs()
    x[::2] *= 50
    assert clustering_scores(x, y).values["clustering_ari"] == 1
    assert clustering_scores(x, y, scaling="none").values["clustering_ari"] < 0.6


def test_the_best_number_of_clusters_does_not_look_at_the_labels():
    x, _ = blobs(classes=3)
    wrong = np.arange(len(x)) % 2  # says there are two classes, but there are three blobs
    assert clustering_scores(x, wrong).values["clustering_best_k"] == 3


def test_fewer_examples_than_dimensions_give_the_same_clusters():
    rng = np.random.default_rng(3)
    y = np.repeat(np.arange(4), 10)
    x = (rng.normal(size=(4, 200))[y] + 2 * rng.normal(size=(40, 200))).astype(np.float32)
    found = clustering_scores(x, y, scaling="none")
    np.testing.assert_array_equal(found.assigned, KMeans(4, n_init=10, random_state=0).fit_predict(x))
    silhouette = silhouette_score(x, found.assigned)
    assert found.values["clustering_silhouette"] == pytest.approx(silhouette, abs=1e-5)


@pytest.mark.parametrize("most", [5000, 60])
def test_numbers_are_tried_on_some_examples_and_the_one_taken_is_fitted_to_all(monkeypatch, most):
    monkeypatch.setattr(clustering, "MAX_SILHOUETTE", most)
    x, y = blobs(classes=5, each=20, spread=6.0, seed=4)
    found = clustering_scores(x, y, seed=1, scaling="none").values
    drawn = np.arange(100) if most > 100 else np.random.default_rng(1).permutation(100)[:most]
    silhouettes = {
        k: silhouette_score(x[drawn], KMeans(k, n_init=10, random_state=1).fit_predict(x[drawn]))
        for k in range(3, 9)
    }
    best = max(silhouettes, key=silhouettes.get)
    assert best != 5
    assert found["clustering_best_k"] == best
    expected = KMeans(best, n_init=10, random_state=1).fit_predict(x)
    assert found["clustering_ari_best"] == adjusted_rand_score(y, expected)
    assert found["clustering_silhouette_best"] == pytest.approx(silhouette_score(x[drawn], expected[drawn]))


def test_points_that_are_all_the_same_give_no_silhouette_and_no_warning():
    found = clustering_scores(np.ones((8, 2)), [0, 1] * 4)
    assert np.isnan(found.values["clustering_silhouette"])
    assert found.values["clustering_ari"] == 0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((3, 2)), [0, 1], "do not fit"),
        (np.ones((3, 2)), [0, 0, 0], "at least two classes"),
        (np.ones((3, 2)), [0, 1, 2], "more examples than classes"),
    ],
)
def test_what_cannot_be_clustered_is_said(x, y, message):
    with pytest.raises(ConfigError, match=message):
        clustering_scores(x, y)


def test_an_unknown_scaling_is_said():
    with pytest.raises(ConfigError, match="Choose 'unit', 'standard' or 'none'"):
        clustering_scores(*blobs(), scaling="l2")


def test_two_clusters_are_enough_for_a_silhouette():
    x, y = blobs(classes=2)
    found = clustering_scores(x, y)
    assert found.values["clustering_silhouette"] == pytest.approx(silhouette_score(normalize(x), y))
    assert found.values["clustering_best_k"] == 2


@pytest.mark.parametrize(("blobs_there", "classes", "best"), [(8, 3, 6), (3, 5, 3)])
def test_the_search_goes_from_two_below_to_three_above(blobs_there, classes, best):
    x, _ = blobs(classes=blobs_there)
    labels = np.arange(len(x)) % classes
    assert clustering_scores(x, labels).values["clustering_best_k"] == best
