"""Paths in configuration files: what is read is found from the file's folder, then from where the user stands."""

from pathlib import Path

import yaml

from avex.configs import RunConfig


def write(folder, **changes):
    noise = {"noise_dirs": ["noise", "gs://bucket/noise"], "snr_db_range": [0, 5], "augmentation_prob": 1}
    config = {
        "model_spec": {"name": "eat_hf", "fairseq_weights_path": "weights.pt"},
        "training_params": {"train_epochs": 1, "lr": 0.1, "batch_size": 2},
        "dataset_config": {"train_datasets": [{"dataset_name": "manifest", "data_root": "clips.csv"}]},
        "checkpoint_path": "start.safetensors",
        "augmentations": [{"noise": noise}],
        "output_dir": "runs",
        "loss_function": "cross_entropy",
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "run.yml").write_text(yaml.safe_dump(config))
    return folder / "run.yml"


def paths(run):
    return (
        run.dataset_config.train_datasets[0].data_root,
        run.checkpoint_path,
        run.model_spec.fairseq_weights_path,
        *run.augmentations[0].noise_dirs,
    )


def test_inputs_start_from_the_folder_of_the_file(tmp_path, monkeypatch):
    file = write(tmp_path / "project" / "configs")
    names = ("clips.csv", "start.safetensors", "weights.pt", "noise")
    expected = (*(str(file.parent / name) for name in names), "gs://bucket/noise")
    monkeypatch.chdir(tmp_path)
    run = RunConfig.from_sources(Path("project/configs/run.yml"))
    assert paths(run) == expected
    assert run.output_dir == "runs"
    (tmp_path / "noise").mkdir()  # it is not beside the file, and is where the user stands
    assert paths(RunConfig.from_sources(file))[3] == str(tmp_path / "noise")
    (file.parent / "noise").mkdir()
    assert paths(RunConfig.from_sources(file))[3] == str(file.parent / "noise")


def test_a_patch_starts_from_where_the_user_stands(tmp_path):
    file = write(tmp_path / "configs")
    assert RunConfig.from_sources(file, ["checkpoint_path=other.pt"]).checkpoint_path == "other.pt"


def test_what_a_run_stores_means_the_same_elsewhere(tmp_path, monkeypatch):
    from avex.training.environment import plain_config

    file = write(tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    run = RunConfig.from_sources(Path("configs/run.yml"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "config.yml").write_text(yaml.safe_dump(plain_config(run)))
    monkeypatch.chdir("/")
    assert paths(RunConfig.from_sources(tmp_path / "runs" / "config.yml")) == paths(
        RunConfig.from_sources(file)
    )
