"""Configs of data, training and evaluation: the documented fields, what contradicts, files and patches."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from avex._core.errors import ConfigError, UnknownNameError
from avex.configs import (
    BenchmarkEvaluationConfig,
    DatasetCollectionConfig,
    DatasetConfig,
    EvaluateConfig,
    EvaluationSet,
    ExperimentConfig,
    ModelSpec,
    OfflineEmbeddingsConfig,
    ProbeConfig,
    RunConfig,
    TaskCard,
)
from avex.configs.base import load_tree, place, validated
from avex.data import find_benchmark

REPO = Path(__file__).resolve().parents[2]
RECIPES = sorted((REPO / "configs" / "evaluation_configs").glob("*.yml"))
DATA = sorted((REPO / "configs" / "data_configs").glob("*.yml"))

RUN = {
    "model_spec": {"name": "efficientnet", "pretrained": False, "device": "cpu"},
    "training_params": {"train_epochs": 1, "lr": 1e-3, "batch_size": 4},
    "dataset_config": {"train_datasets": [{"dataset_name": "beans"}]},
    "output_dir": "out",
    "loss_function": "cross_entropy",
}
CLIPS = {"dataset_name": "manifest", "data_root": "clips.csv"}


def evaluate(**changes):
    experiment = {"run_name": "one", "model": "birdnet", "layers": "last_layer"}
    return EvaluateConfig(
        **{"experiments": [experiment], "dataset_config": "small", "save_dir": "out", **changes}
    )


def test_documented_defaults():
    config = evaluate()
    params = config.training_params
    assert (params.train_epochs, params.lr, params.batch_size, params.optimizer) == (10, 1e-4, 2, "adamw")
    assert params.weight_decay == 0.01
    assert config.eval_modes == ["probe"]
    assert config.probe_num_workers == 0
    offline = OfflineEmbeddingsConfig()
    assert (offline.memory_limit_gb, offline.cache_size_limit_gb, offline.streaming_chunk_size) == (
        32,
        8.0,
        1000,
    )
    assert (offline.max_chunk_size, offline.min_chunk_size, offline.batch_chunk_size) == (2000, 100, 10)
    assert (offline.hdf5_compression, offline.hdf5_compression_level) == ("gzip", 4)
    assert offline.probe_storage_aggregation == "none"
    dataset = DatasetConfig(dataset_name="beans")
    assert (dataset.split, dataset.streaming, dataset.backend) == ("train", False, "polars")
    chosen = EvaluationSet(name="x", folds=CLIPS)
    assert (chosen.metrics, chosen.retrieval_mode) == (["accuracy"], "test_vs_test")


def test_the_older_form_of_an_experiment():
    experiment = ExperimentConfig(run_name="old", run_config=RUN, layers="layer_3, last_layer", frozen=False)
    assert experiment.get_target_layers() == ["layer_3", "last_layer"]
    assert experiment.get_probe_type() == "linear"
    assert experiment.get_aggregation_method() == "mean"
    assert experiment.get_input_processing_method() == "pooled"
    assert not experiment.is_frozen()
    assert experiment.get_training_mode()
    assert ExperimentConfig(run_name="old", run_config=RUN, layers="all").is_frozen()


def test_the_newer_form_of_an_experiment():
    probe = {"probe_type": "mlp", "target_layers": ["all"], "hidden_dims": [8], "dropout_rate": 0.3}
    experiment = ExperimentConfig(run_name="new", model="birdnet", probe_config=probe)
    assert experiment.get_probe_config() == ProbeConfig(**probe)
    assert experiment.get_probe_specific_params() == {"hidden_dims": [8], "dropout_rate": 0.3}
    assert experiment.is_frozen()
    assert experiment.spec() is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "birdnet"}, "no probe"),
        ({"layers": "all"}, "names no model"),
        ({"model": "birdnet", "run_config": RUN, "layers": "all"}, "run_config and model"),
        ({"model": "birdnet", "layers": "all", "probe_config": {"target_layers": ["all"]}}, "older form"),
        ({"model": "birdnet", "layers": " , "}, "target_layers"),
        ({"model_spec": {"name": "beats", "oops": 1}, "layers": "all"}, "oops"),
        ({"model_spec": {"device": "cpu"}, "layers": "all"}, "names no model"),
        ({"model": "birdnet", "layer": "all"}, "layer"),
    ],
)
def test_experiments_that_cannot_be(fields, message):
    with pytest.raises(ValidationError, match=message):
        ExperimentConfig(run_name="x", **fields)


def test_fields_of_the_model_are_replaced():
    by_run = ExperimentConfig(run_name="x", run_config=RUN, model_spec={"device": "cuda:1"}, layers="all")
    assert by_run.spec() == ModelSpec(name="efficientnet", pretrained=False, device="cuda:1")
    typed = ExperimentConfig(
        run_name="x", run_config=RunConfig(**RUN), model_spec={"efficientnet_variant": "b1"}, layers="all"
    )
    assert typed.spec().efficientnet_variant == "b1"
    alone = ExperimentConfig(run_name="x", model_spec=ModelSpec(name="beats", device="cpu"), layers="all")
    assert alone.spec() == ModelSpec(name="beats", device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiments": []}, "at least 1"),
        ({"experiments": [{"run_name": "a", "model": "birdnet", "layers": "all"}] * 2}, "several of: a"),
        ({"eval_modes": ["probe", "probe"]}, "twice"),
        ({"eval_modes": ["probing"]}, "eval_modes"),
        ({"device": "gpu"}, "device"),
        ({"overwrite": "maybe"}, "overwrite"),
        ({"few_shot": {"shots": [0]}}, "shots"),
        ({"offline_embeddings": {"min_chunk_size": 300, "max_chunk_size": 200}}, "above max_chunk_size"),
    ],
)
def test_evaluations_that_cannot_be(changes, message):
    with pytest.raises(ValidationError, match=message):
        evaluate(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multilabel": True}, "'bce' or 'focal'"),
        ({"loss_function": "clip"}, "label_type='text'"),
        ({"label_type": "text"}, "'contrastive' or 'clip'"),
        ({"loss_function": "mse"}, "loss_function"),
        ({"sr": 0}, "sr"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_runs_that_contradict_themselves(changes, message):
    """The first one passes in avex 1.x, where the check runs before the field is read."""
    with pytest.raises(ValidationError, match=message):
        RunConfig(**{**RUN, **changes})


def test_runs_that_agree():
    assert (
        RunConfig(**{**RUN, "loss_function": "binary_cross_entropy", "multilabel": True}).loss_function
        == "bce"
    )
    assert RunConfig(**{**RUN, "loss_function": "clip", "label_type": "text"}).label_type == "text"
    noise = {"noise": {"noise_dirs": ["n"], "snr_db_range": [-5, 20], "augmentation_prob": 0.5}}
    mixup = {"kind": "mixup", "alpha": 0.4, "augmentation_prob": 0.5}
    run = RunConfig(**{**RUN, "augmentations": [noise, mixup]})
    assert [augment.kind for augment in run.augmentations] == ["noise", "mixup"]


def test_evaluation_sets():
    fixed = EvaluationSet(name="a", train=CLIPS, test={**CLIPS, "split": "test"})
    collection = fixed.to_dataset_collection_config()
    assert collection.train_datasets == [fixed.train]
    assert collection.val_datasets is None
    assert EvaluationSet.model_validate("animals11").is_reference
    with pytest.raises(ValidationError, match="has train only"):
        EvaluationSet(name="a", train=CLIPS)
    with pytest.raises(ValidationError, match="either folds, or train and test"):
        EvaluationSet(name="a", train=CLIPS, folds=CLIPS)
    with pytest.raises(ValidationError, match="at least one dataset"):
        DatasetCollectionConfig()


def test_multi_label_follows_from_what_is_said():
    assert DatasetConfig(**CLIPS, type="detection").is_multi_label
    assert DatasetConfig(**CLIPS, multi_label=True).is_multi_label
    step = {"type": "labels_from_features", "features": "labels"}
    assert DatasetConfig(**CLIPS, transformations=[step]).is_multi_label
    assert not DatasetConfig(**CLIPS, type="classification").is_multi_label
    with pytest.raises(ValidationError, match="several labels or none"):
        DatasetConfig(**CLIPS, type="detection", multi_label=False)
    with pytest.raises(ValidationError, match="Did you mean 'filter'"):
        DatasetConfig(**CLIPS, transformations=[{"type": "filtr"}])


def test_dataset_configs_survive_a_round_trip():
    steps = [{"type": "label_from_feature", "feature": "species"}, {"type": "deduplicate"}]
    config = DatasetConfig(**CLIPS, transformations=steps, sample_rate="None")
    assert config.sample_rate is None
    assert config.model_dump()["transformations"][0]["feature"] == "species"
    assert DatasetConfig(**config.model_dump()) == config


def test_benchmarks_find_their_sets():
    benchmark = BenchmarkEvaluationConfig(
        benchmark_name="b", evaluation_sets=["animals11", {"name": "own", "folds": CLIPS, "metrics": ["mAP"]}]
    )
    assert benchmark.get_metrics_for_evaluation_set("own") == ["mAP"]
    assert [name for name, _ in benchmark.get_all_evaluation_sets()] == ["own"]
    with pytest.raises(ValueError, match="Did you mean 'animals11'"):
        benchmark.get_evaluation_set("animals1")
    with pytest.raises(ValidationError, match="several of: a"):
        BenchmarkEvaluationConfig(benchmark_name="b", evaluation_sets=["a", "a"])


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_files_name_files_and_patches_reach_into_them(tmp_path):
    write(tmp_path / "runs/run.yml", {**RUN, "dataset_config": "data.yml"})
    write(
        tmp_path / "runs/data.yml",
        {"train_datasets": [{"dataset_name": "manifest", "data_root": "clips.csv"}]},
    )
    write(
        tmp_path / "sets.yml",
        {"x-anchor": 1, "benchmark_name": "b", "evaluation_sets": [{"name": "own", "folds": CLIPS}]},
    )
    experiment = {"run_name": "one", "run_config": "runs/run.yml", "layers": "all"}
    main = write(
        tmp_path / "eval.yml", {"experiments": [experiment], "dataset_config": "sets.yml", "save_dir": "out"}
    )
    patches = [
        "experiments[0].model_spec.device=cuda",
        "--training_params={train_epochs: 3, lr: 0.1, batch_size: 1}",
    ]
    patches.append("experiments[0].run_config.training_params.lr=1e-4")
    config = EvaluateConfig.from_sources(main, patches)
    run = config.experiments[0].run_config
    assert (run.model_spec.device, run.model_spec.name, run.training_params.lr) == (
        "cuda",
        "efficientnet",
        1e-4,
    )
    assert run.dataset_config.train_datasets[0].data_root == str(tmp_path / "runs/clips.csv")
    assert config.dataset_config.evaluation_sets[0].folds.data_root == str(tmp_path / "clips.csv")
    assert config.training_params.train_epochs == 3
    named = EvaluateConfig.from_sources(main, patches, save_dir="no #1\udce9", data_root=None)
    assert (named.save_dir, named.data_root) == ("no #1\udce9", None)


def test_cards_stand_for_benchmarks(tmp_path):
    card = {
        "name": "ponds",
        "task": "classification",
        "license": "CC0",
        "obtain": "Ask.",
        "layout": {"folder": "ponds", "files": ["clips.csv"]},
        "folds": CLIPS,
    }
    write(tmp_path / "cards/ponds.yml", card)
    write(tmp_path / "cards/both.yml", {"name": "both", "tasks": ["animals11", "birds10"]})
    rest = {"experiments": [{"run_name": "x", "model": "m", "layers": "a"}], "save_dir": "out"}
    main = write(tmp_path / "eval.yml", {"dataset_config": "cards/ponds.yml", **rest})
    (found,) = EvaluateConfig.from_sources(main).dataset_config.evaluation_sets
    assert (found.name, found.folds.data_root) == ("ponds", str(tmp_path / "cards/clips.csv"))
    write(main, {"dataset_config": "cards/both.yml", **rest})
    sets = EvaluateConfig.from_sources(main).dataset_config.evaluation_sets
    assert [item.name for item in sets] == ["animals11", "birds10"]
    write(main, {"dataset_config": {"benchmark_name": "b"}, **rest})
    with pytest.raises(ConfigError, match=r"dataset_config: Value error, evaluation_sets: Field required"):
        EvaluateConfig.from_sources(main)
    write(tmp_path / "wrong.yml", {"benchmark_name": "b", "evaluation_sets": []})
    with pytest.raises(ConfigError, match=r"wrong\.yml' is no benchmark: evaluation_sets: "):
        find_benchmark(str(tmp_path / "wrong.yml"))


def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path):
    main = write(
        tmp_path / "eval.yml",
        {"experiments": [{"run_name": "x", "model": "m", "layers": "a", "y": 1}], "save_dir": "out"},
    )
    with pytest.raises(
        ConfigError, match=r"eval\.yml' is not valid: experiments\[0\]\.y: .*dataset_config: Field required"
    ):
        EvaluateConfig.from_sources(main)
    with pytest.raises(ConfigError, match=r"index 3 is out of range"):
        EvaluateConfig.from_sources(main, ["experiments[3].run_name=x"])
    with pytest.raises(ConfigError, match="does not exist"):
        EvaluateConfig.from_sources(tmp_path / "none.yml")
    write(main, {"dataset_config": "eval.yml"})
    with pytest.raises(ConfigError, match="names itself"):
        load_tree(main, ("dataset_config",))
    assert place(()) == ""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_evaluation_recipe_parses_and_its_tasks_are_known(path):
    config = EvaluateConfig.from_sources(path)
    assert find_benchmark(config.dataset_config).evaluation_sets
    for experiment in config.experiments:
        assert experiment.get_target_layers()


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_every_data_recipe_parses(path):
    if "train_datasets" in yaml.safe_load(path.read_text(encoding="utf-8")):
        assert validated(DatasetCollectionConfig, load_tree(path), str(path)).train_datasets
    else:
        assert all(not item.is_reference for item in find_benchmark(str(path)).evaluation_sets)


def test_recipes_exist():
    assert len(RECIPES) >= 5
    assert len(DATA) >= 5


def test_names_in_recipes_and_on_the_command_line(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'small'"):
        find_benchmark("smal")
    assert find_benchmark("esc50").evaluation_sets[0].folds.dataset_name == "esc50"
    changed = BenchmarkEvaluationConfig(
        benchmark_name="b", evaluation_sets=[{"name": "animals11", "metrics": ["mAP"]}]
    )
    (resolved,) = find_benchmark(changed).evaluation_sets
    assert (resolved.metrics, resolved.folds.split) == (["mAP"], "all")


def test_cards_must_agree_with_themselves():
    card = {
        "name": "x",
        "task": "classification",
        "license": "CC0",
        "obtain": "Ask.",
        "layout": {"folder": "x", "files": ["a"]},
    }
    with pytest.raises(ValidationError, match="names no data"):
        TaskCard(**card)
    with pytest.raises(ValidationError, match="none of the metrics"):
        TaskCard(**card, folds=CLIPS, main_metric="mAP")
    with pytest.raises(ValidationError, match="num_classes is 3"):
        TaskCard(**card, folds=CLIPS, num_classes=3, classes=["a", "b"])
    main_first = TaskCard(**card, folds=CLIPS, metrics=["accuracy", "mAP"], main_metric="mAP")
    assert main_first.evaluation_set().metrics == ["mAP", "accuracy"]
