"""Weights of the native BirdNET network: from BirdNET's own file or from a checkpoint of a fine-tuned one."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from avex.models.birdnet.config import BirdNetConfig
from avex.models.birdnet.tflite_weights import read_tflite_state
from avex.weights import LoadReport, StateDictAdapter, apply_state, choose_adapter, read_checkpoint
from avex.weights.deferred import DeferredInitialisation

HEAD_PREFIX = "classifier."


def read_state(path: str | Path, config: BirdNetConfig) -> dict[str, Tensor]:
    """Tensors of a weights file under the names of the native network's state dict.

    Args:
        path: BirdNET's `.tflite` file, or a safetensors or torch.save file of a native network's state dict.
        config: Sizes of the network.

    Raises:
        WeightsError: The file is damaged or of another network.
        UnsafeCheckpointError: A pickle that holds code.
    """
    with Path(path).open("rb") as file:
        is_tflite = file.read(8)[4:] == b"TFL3"
    return read_tflite_state(path, config) if is_tflite else read_checkpoint(path).tensors


def load_state(
    model: nn.Module,
    state: dict[str, Tensor],
    *,
    new_head: bool,
    source: str,
    deferred: DeferredInitialisation,
) -> LoadReport:
    """Give such tensors to the native network, all of them or none.

    Args:
        model: Has the parts `frontend`, `backbone` and, unless it gives features only, `classifier`.
        state: What `read_state` returned.
        new_head: Keep the model's own classifier, leave out the file's.
        source: Where the tensors came from, for messages.
        deferred: What the network was built under.

    Raises:
        WeightsError: A tensor is missing, unexpected, of another shape, or not finite.
    """
    names = set(model.state_dict())
    adapter = choose_adapter([StateDictAdapter(names)], set(state), source, "birdnet")
    has_head = any(name.startswith(HEAD_PREFIX) for name in names)
    return apply_state(
        model,
        adapter.convert(state),
        head_prefixes=(HEAD_PREFIX,),
        reset_head=has_head and new_head,
        drop_head=not has_head,
        source=source,
        deferred=deferred,
        take_over=True,
    )
