"""Which processes train together: started here, by torchrun, or by SLURM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from avex._core.errors import ConfigError
from avex.configs.training import RunConfig
from avex.models.utils.factory import pick_device

_ACCELERATORS = {"cuda": "gpu", "mps": "mps", "xpu": "xpu", "cpu": "cpu"}


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Attributes:
        accelerator: `cpu`, `gpu`, `mps`.
        devices: Processes on this machine, or the one device to use as a list.
        num_nodes: Machines.
        world_size: Processes on all of them.
        first: Whether this is the one that writes files.
    """

    accelerator: str
    devices: int | list[int]
    num_nodes: int
    world_size: int
    first: bool


def find_processes(config: RunConfig, environment: Mapping[str, str] | None = None) -> Processes:
    """Find out which processes train together.

    Under torchrun (`WORLD_SIZE`, `LOCAL_WORLD_SIZE`, `RANK`) and SLURM (`SLURM_NTASKS`, `SLURM_NNODES`,
    `SLURM_PROCID`) these decide; else `num_devices` processes are started on this machine.

    Args:
        config: The run.
        environment: Variables; None takes the process's own.

    Raises:
        ConfigError: Processes that cannot be divided evenly over machines.

    Example:
        >>> started = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}
        >>> find_processes(config, started).num_nodes                              # doctest: +SKIP
        2
    """
    env = os.environ if environment is None else environment
    device = pick_device(None, default=config.device)
    accelerator = _ACCELERATORS[device.type]
    if "TORCHELASTIC_RUN_ID" in env or ("WORLD_SIZE" in env and "LOCAL_WORLD_SIZE" in env):
        world, local, rank = (int(env[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK"))
        return _even(accelerator, world, local, rank, "torchrun")
    if int(env.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in env:
        world, nodes = int(env["SLURM_NTASKS"]), int(env.get("SLURM_NNODES", 1))
        return _even(accelerator, world, max(1, world // nodes), int(env["SLURM_PROCID"]), "SLURM")
    rank = int(env.get("LOCAL_RANK", 0))
    world = config.num_devices * config.num_nodes
    if world == 1 and device.index is not None:
        return Processes(accelerator, [device.index], 1, 1, True)
    return Processes(accelerator, config.num_devices, config.num_nodes, world, rank == 0)


def find_precision(config: RunConfig, accelerator: str) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Precision of a run, by Lightning's name.

    Raises:
        ConfigError: Half precision on the CPU.
    """
    params = config.training_params
    if not params.amp:
        return "32-true"
    if params.amp_dtype == "fp16" and accelerator == "cpu":
        raise ConfigError("amp_dtype 'fp16' needs a GPU; on the CPU use bf16, or amp: false.")
    return "bf16-mixed" if params.amp_dtype == "bf16" else "16-mixed"


def _even(accelerator: str, world: int, local: int, rank: int, starter: str) -> Processes:
    if world % local:
        raise ConfigError(
            f"{starter} started {world} processes, which are not {local} on every machine. Start as many on each."
        )
    return Processes(accelerator, local, world // local, world, rank == 0)
