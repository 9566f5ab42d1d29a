"""The leaderboard: a fold over results, nothing else; and files that hold what they should."""

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from avex._core.errors import ConfigError, UnknownNameError
from avex.evaluation import write_leaderboard
from avex.evaluation.leaderboard import column_of, make_boards, markdown
from avex.evaluation.plots import layers_figure
from avex.evaluation.projection import principal_components
from avex.evaluation.results import Result, Saved, find_results, read_predictions, read_result, write_result
from avex.evaluation.results import result_path as path_of
from avex.evaluation.summary import summary_rows
from avex.evaluation.variants import distinguish


def result(task="frogs", experiment="tiny", value=0.5, mode="probe", seed=0, version="1", **changes):
    model = {
        "card": "tiny", "weights": "ab" * 32, "layers": ["last_layer"], "sample_rate": 16000, "window_s": 1.0,
        "precision": "fp32", "pooling": "mean",
    }  # fmt: skip
    fields = {
        "benchmark": "b", "task": task, "task_version": version, "task_digest": "d", "experiment": experiment,
        "mode": mode, "seed": seed, "model": model, "settings": {}, "main_metric": "accuracy",
        "scores": {"accuracy": (value, value - 0.1, value + 0.1)}, "clips": {"test": 4}, "classes": 2,
    }  # fmt: skip
    return Result(**{**fields, **changes})


def test_the_best_mean_comes_first_and_only_of_those_with_all_tasks():
    results = [
        result("frogs", "a", 0.5), result("owls", "a", 0.7), result("frogs", "b", 0.9), result("owls", "b", 0.6),
        result("frogs", "c", 1.0),
    ]  # fmt: skip
    (board,) = make_boards(results)
    assert list(board.rows) == ["b", "a", "c"]
    assert board.means == pytest.approx({"a": 0.6, "b": 0.75})
    assert "| c | 1.000 [0.900, 1.100] |  |  |" in markdown([board])


def test_several_seeds_are_their_mean_and_range():
    (board,) = make_boards([result(seed=1, value=0.5), result(seed=2, value=0.7)])
    cell = board.rows["tiny"]["frogs · accuracy"]
    assert (cell.value, cell.low, cell.high, cell.seeds) == (pytest.approx(0.6), 0.5, 0.7, 2)


def test_versions_and_metrics_are_not_mixed():
    other = result(main_metric="map", scores={"map": (0.1, None, None)})
    (board,) = make_boards([result(), result(version="2"), other])
    assert board.tasks == ("frogs v2 · accuracy", "frogs · accuracy", "frogs · map")


def test_the_newest_of_equals_counts():
    old, new = result(value=0.1, finished_utc="2025"), result(value=0.2, finished_utc="2026")
    for order in ([old, new], [new, old]):
        current, superseded = distinguish(order, column_of)
        assert make_boards(current)[0].rows["tiny"]["frogs · accuracy"].value == 0.2
        assert superseded == [old]


def chosen(c=None, layers=("last",), **others):
    probe = {"probe_type": "linear", "target_layers": list(layers), "extra_config": c and {"strength": c}}
    return {"probe": probe, "seed": 0, "task": ["frogs"], **others}


def test_other_settings_are_other_rows_with_their_difference_in_the_name():
    results = [
        result(settings=chosen(0.1, bootstrap_samples=1000), value=0.1),
        result(settings=chosen(0.2, bootstrap_samples=100), value=0.2),
        result("owls", settings=chosen(0.2), value=0.4),
        result(experiment="other", settings=chosen(0.1), value=0.3),
    ]
    current, superseded = distinguish(results, column_of)
    (board,) = make_boards(current)
    assert set(board.rows) == {"tiny (strength=0.1)", "tiny (strength=0.2)", "other"}
    assert board.means == {"tiny (strength=0.2)": pytest.approx(0.3)}
    assert superseded == []


def test_settings_of_the_probe_play_no_part_in_modes_that_have_none():
    results = [result(mode="knn", settings=chosen(c, knn_neighbors=5), finished_utc=str(c)) for c in (1, 2)]
    current, superseded = distinguish(results, column_of)
    assert ([r.experiment for r in current], len(superseded)) == (["tiny"], 1)
    results.append(result(mode="knn", settings=chosen(knn_neighbors=1)))
    results.append(result(mode="knn", settings=chosen(layers=["a", "b"], knn_neighbors=1)))
    assert [r.experiment for r in distinguish(results, column_of)[0]] == [
        'tiny (target_layers=["last"], knn_neighbors=5)',
        'tiny (target_layers=["last"], knn_neighbors=1)',
        'tiny (target_layers=["a", "b"], knn_neighbors=1)',
    ]


def test_other_weights_are_another_row_and_random_ones_are_averaged():
    models = [{"card": {"name": "tiny"}, "sha256": digit * 64} for digit in "ab"]
    current, _ = distinguish([result(settings={"model": model}) for model in models], column_of)
    assert [r.experiment for r in current] == ["tiny (sha256=aaaaaaaa)", "tiny (sha256=bbbbbbbb)"]
    seeds = [result(seed=i, value=i / 10, settings={"model": {"sha256": None, "seed": i}}) for i in (1, 2)]
    (board,) = make_boards(distinguish(seeds, column_of)[0])
    assert board.rows["tiny"]["frogs · accuracy"].seeds == 2


def test_what_is_replaced_is_said_on_the_page_and_kept_in_the_table(tmp_path):
    for i, value in enumerate((0.1, 0.2)):
        item = result(value=value, finished_utc=str(2025 + i))
        write_result(path_of(tmp_path, "frogs", "tiny", "probe", f"{i}" * 64), item)
    files = write_leaderboard([tmp_path], tmp_path / "board", figures=False)
    for path in files[1:]:
        assert "newer results of the same settings and seed" in path.read_text()
        assert "tiny on frogs (probe, seed 0)" in path.read_text()
    rows = list(csv.DictReader(io.StringIO(files[0].read_text())))
    assert [(row["value"], row["superseded"]) for row in rows] == [("0.2", "False"), ("0.1", "True")]
    for row in summary_rows(result for _, result in find_results(tmp_path)):
        assert row["test_accuracy"] == 0.2


def write(folder, item, saved=None):
    write_result(path_of(folder, item.task, item.experiment, item.mode, "0" * 64), item, saved)


def test_results_survive_writing_and_reading(tmp_path):
    saved = Saved(
        ("x", "y"), ("1", "2"), ("test", "test"), np.array([0, 1]), np.eye(2, dtype=np.float32), ("a", "b")
    )
    item = result(
        details={"confusion": {"classes": ["a", "b"], "counts": np.eye(2, dtype=int)}}, seconds={"probe": 1.5}
    )
    write(tmp_path, item, saved)
    ((path, found),) = find_results(tmp_path)
    assert found.scores == item.scores
    assert found.details["confusion"]["counts"] == [[1, 0], [0, 1]]
    again = read_predictions(path)
    assert (again.ids, again.classes) == (saved.ids, saved.classes)
    np.testing.assert_array_equal(again.probabilities, saved.probabilities)


def test_damaged_results_are_named(tmp_path):
    write(tmp_path, result())
    ((path, _),) = find_results(tmp_path)
    path.write_text("{}")
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_result(path)
    path.write_text('{"schema": 99}')
    with pytest.raises(ConfigError, match="schema 99"):
        read_result(path)
    with pytest.raises(ConfigError, match="no folder"):
        list(find_results(tmp_path / "nowhere"))


def test_another_metric_comes_from_the_predictions(tmp_path):
    y = np.array([0, 0, 0, 1])
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], np.float32)
    saved = Saved(tuple("wxyz"), tuple("1234"), ("test",) * 4, y, p, ("a", "b"))
    write(tmp_path, result(), saved)
    write_leaderboard([tmp_path], tmp_path / "board", metric="balanced_accuracy", figures=False)
    text = (tmp_path / "board/leaderboard.md").read_text()
    assert "frogs · balanced_accuracy" in text
    assert "| tiny | 0.500" in text  # one class wholly right, one wholly wrong
    with pytest.raises(UnknownNameError, match="Unknown metric 'nice'"):
        write_leaderboard([tmp_path], tmp_path / "board", metric="nice", figures=False)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.images, self.buttons = [], 0, 0

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        self.buttons += tag == "button"
        self.found += [
            value for name, value in attrs if name in ("src", "href") and not value.startswith(("#", "data:"))
        ]


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path):
    curve = [
        {"layer": "one", "value": 0.4, "low": 0.3, "high": 0.5},
        {"layer": "two", "value": 0.6, "low": None, "high": None},
    ]
    shots = [
        {"shots": 1, "value": 0.4, "low": 0.3, "high": 0.5},
        {"shots": 4, "value": 0.6, "low": 0.5, "high": 0.7},
    ]
    details = {
        "layers": curve,
        "confusion": {"classes": ["a", "<b>"], "counts": [[2, 0], [1, 1]]},
        "scatter": {"method": "pca", "points": [[0, 1], [1, 0]], "classes": [0, -1], "names": ["a", "b"]},
    }  # fmt: skip
    write(tmp_path, result(experiment="<tiny>", details=details))
    few = {"main_metric": "fewshot_4_accuracy", "scores": {"fewshot_4_accuracy": (0.6, 0.5, 0.7)}}
    write(tmp_path, result(mode="fewshot", details={"shots": shots}, **few))
    files = write_leaderboard([tmp_path], tmp_path / "board")
    assert [path.name for path in files] == ["leaderboard.csv", "leaderboard.md", "index.html"]
    text = files[2].read_text()
    page = Links()
    page.feed(text)
    assert page.found == []
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", text)
    assert page.images == 4
    assert page.buttons >= 4
    assert "<tiny>" not in text
    assert "frogs · accuracy, 4 shots" in text
    plain = write_leaderboard([tmp_path], tmp_path / "plain", figures=False)[2].read_text()
    assert "<img" not in plain


def test_no_results_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="Run avex evaluate first"):
        write_leaderboard([tmp_path], tmp_path / "board")


def test_principal_components_keep_distances_of_flat_data():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(20, 2)) @ np.linalg.qr(rng.normal(size=(5, 2)))[0].T
    points = principal_components(flat)
    before = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    after = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(before, after, atol=1e-9)
    assert points[:, 0].var() >= points[:, 1].var()


def test_layers_of_different_models_are_numbered_and_of_one_model_named():
    from matplotlib.figure import Figure

    def labels(curves):
        shown = []
        original = Figure.savefig

        def keep(figure, *arguments, **options):
            shown.extend(tick.get_text() for tick in figure.axes[0].get_xticklabels())
            shown.append(figure.axes[0].get_xlabel())
            return original(figure, *arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", keep)
            layers_figure(curves, "accuracy")
        return shown

    def curve(names):
        return [{"layer": name, "value": 0.5, "low": 0.4, "high": 0.6} for name in names]

    long = [f"backbone.encoder.layers.{i}.final_layer_norm" for i in range(3)]
    *named, axis = labels({"a": curve(long), "b": curve(long)})
    assert axis == "layer"
    assert len(set(named)) == 3
    assert labels({"a": curve(long), "b": curve(["x", "y"])})[:3] == ["1", "2", "3"]
