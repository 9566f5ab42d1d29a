"""Throughput: products are counted exactly and replayed as they are; nothing here looks at how long it takes."""

import io
import json
import math
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from avex._core.errors import ConfigError, UnknownModelError, WeightsError
from avex.cli.bench_report import BenchReport, product_table, speed_table
from avex.configs import AudioConfig, ModelCard, ModelSpec
from avex.embedding.throughput import (
    LowerBound,
    Product,
    Throughput,
    interleave,
    measure,
    plan_bench,
    record_products,
)
from avex.embedding.throughput.bound import _WAYS, _Scratch
from avex.embedding.throughput.products import network_products
from avex.embedding.throughput.result import ProductShare
from avex.embedding.throughput.timing import runner
from avex.models.base_model import ModelBase
from avex.models.utils.factory import build_model

CPU = torch.device("cpu")
VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}
HUBERT = {
    "encoder_embed_dim": 16,
    "encoder_num_layers": 2,
    "encoder_num_heads": 4,
    "encoder_pos_conv_groups": 2,
}
FAMILIES = {
    "beats": {"init_config": {"encoder_layers": 1}},
    "eat": {"eat_cfg": {**VIT, "target_length": 128, "max_length": 16}},
    "hubert": {"init_config": HUBERT},
    "birdmae": {"config": VIT},
    "atst_frame": {"config": VIT},
    "efficientnet": {},
    "resnet18": {},
    "clip": {},
    "birdnet": {"backend": "native"},
}


class Tiny(ModelBase):
    """Products that can be counted by hand: windows of 8 samples, each to 12 numbers and back to 8."""

    def __init__(self, device="cpu", audio_config=None, return_features_only=True):
        audio = AudioConfig(sample_rate=800, representation="raw", normalize=False, target_length_seconds=1.0)
        super().__init__(device, audio_config or audio, return_features_only)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x, padding_mask=None):
        return self.down(self.up(x.unfold(1, 8, 8)).relu()).mean(1)


TINY_GFLOP = 2 * 100 * (8 * 12 + 12 * 8) / 1e9  # of a window of 1 s


def attention_flops(query, key, value, *_, **__):
    return sdpa_flop_count(query, key, value)


def counted_by_torch(run):
    """What torch's own counter finds; it does not know the CPU's fused attention."""
    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counter:
        run()
    return counter.get_total_flops()


def flops(products):
    return sum(product.flops for product in products)


def in_inference(function, *arguments):
    def run():
        with torch.inference_mode():
            return function(*arguments)

    return run


# -- recording -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*even kernel lengths")
def test_every_family_is_counted_like_torch_does(family):
    torch.manual_seed(0)
    model = build_model(family, device="cpu", return_features_only=True, **FAMILIES[family]).eval()
    wave = 0.1 * torch.randn(2, 2 * model.sample_rate)
    expected = counted_by_torch(lambda: model.embed(wave))
    assert expected > 1e6
    with torch.no_grad():
        assert flops(record_products(lambda: model.embed(wave))) == expected
    # Operators arrive in another form in inference mode; networks may choose other ways of their own there.
    inference = record_products(in_inference(model.embed, wave))
    assert flops(inference) == pytest.approx(expected, rel=1e-9)


def test_a_transformer_layer_is_counted_by_hand():
    dim, hidden, batch, tokens = 16, 40, 3, 7
    layer = nn.TransformerEncoderLayer(dim, 4, hidden, batch_first=True).eval()
    x = torch.randn(batch, tokens, dim)
    projections = 4 * dim * dim + 2 * dim * hidden
    expected = 2 * batch * tokens * projections + 2 * 2 * batch * tokens * tokens * dim
    assert torch.backends.mha.get_fastpath_enabled()
    # In inference mode torch runs the layer as a single operator, unless it is told not to.
    assert flops(record_products(in_inference(layer, x))) == expected
    assert flops(record_products(lambda: layer(x))) == expected
    assert torch.backends.mha.get_fastpath_enabled()


@given(
    axes=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_convolutions_are_counted_like_torch_does(
    axes, groups, kernel, stride, padding, dilation, transposed
):
    kinds = ((nn.Conv1d, nn.Conv2d), (nn.ConvTranspose1d, nn.ConvTranspose2d))
    sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    conv = kinds[transposed][axes - 1](4, 8, kernel, **sizes)
    x = torch.randn(2, 4, *([9] * axes))
    grown = (9 - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
    assume(grown > 0)
    (product,) = record_products(in_inference(conv, x))
    assert product.flops == counted_by_torch(lambda: conv(x))
    assert product.output_size == conv(x).shape[2:]


def test_products_of_all_kinds():
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    found = record_products(lambda: (a @ b, a[0] @ b[0], torch.addmm(torch.zeros(5), a[0], b[0])))
    assert [p.shapes for p in found] == [((2, 3, 4), (2, 4, 5)), *[((1, 3, 4), (1, 4, 5))] * 2]
    assert [p.shapes for p in record_products(lambda: torch.einsum("bij,bjk->bik", a, b))] == [
        found[0].shapes
    ]
    assert flops(found) == 2 * 3 * 4 * 5 * (2 + 1 + 1)
    sums = torch.zeros(2, 3, 5)
    in_place = record_products(
        lambda: (sums.baddbmm_(a, b), torch.baddbmm(sums, a, b, out=sums), sums[0].addmm_(a[0], b[0]))
    )
    assert [p.shapes for p in in_place] == [found[0].shapes] * 2 + [found[1].shapes]


def test_the_precision_that_is_computed_in_is_recorded():
    layer = nn.Linear(8, 8)

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.zeros(1, 8))

    assert [product.dtype for product in record_products(run)] == [torch.bfloat16]
    assert [p.dtype for p in record_products(lambda: layer.double()(torch.zeros(1, 8).double()))] == [
        torch.float64
    ]


def test_a_front_end_can_be_left_out():
    network = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    x = torch.zeros(2, 4)
    assert len(record_products(lambda: network(x))) == 2
    assert [p.shapes[1] for p in record_products(lambda: network(x), [network[0]])] == [(1, 6, 3)]
    assert not network[0]._forward_hooks
    assert not network[0]._forward_pre_hooks


def test_a_failing_pass_leaves_nothing_behind():
    network = nn.Linear(4, 6)
    with pytest.raises(RuntimeError, match="shapes"):
        record_products(lambda: network(torch.zeros(1, 5)), [network])
    assert not network._forward_hooks
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_is_no_product_of_a_network():
    rows = {"kind": "product", "dtype": torch.float32}
    gate = Product(shapes=((1, 99, 64), (1, 64, 2)), **rows)
    layer = Product(shapes=((1, 99, 64), (1, 64, 8)), **rows)
    statistic = Product("product", ((1, 10, 99), (1, 99, 10)), torch.float64)
    assert network_products([gate, layer, statistic]) == [layer]


# -- the bound -----------------------------------------------------------------------------------------------------

F32, BF16 = torch.float32, torch.bfloat16
SAMPLES = [
    Product("product", ((1, 5, 8), (1, 8, 12)), F32),
    Product("product", ((3, 5, 8), (3, 8, 12)), BF16),
    Product("attention", ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)), F32),
    Product("convolution", ((2, 4, 9), (6, 2, 3)), F32, ((2,), (1,), (1,), False, (0,), 2)),
    Product("convolution", ((2, 4, 9, 8), (6, 4, 3, 2)), F32, ((2, 1), (1, 0), (1, 2), False, (0, 0), 1)),
    Product("convolution", ((2, 4, 9, 8), (6, 4, 1, 1)), F32, ((1, 1), (0, 0), (1, 1), False, (0, 0), 1)),
    Product("convolution", ((2, 4, 9, 8), (6, 4, 1, 1)), F32, ((2, 2), (0, 0), (1, 1), False, (0, 0), 1)),
    Product("convolution", ((2, 4, 9, 8), (4, 3, 3, 3)), F32, ((2, 2), (0, 0), (1, 1), True, (1, 1), 2)),
]


@pytest.mark.parametrize("product", SAMPLES, ids=lambda product: product.label)
def test_every_way_computes_the_same_product(product):
    ways = _WAYS[product.kind](product, _Scratch(CPU))
    assert len(ways) >= 2
    for way, operation in ways.items():
        replayed = record_products(in_inference(operation))
        assert flops(replayed) == product.flops, way
        assert {p.dtype for p in replayed} == {product.dtype}, way


def test_a_bound_consists_of_what_was_recorded():
    products = [SAMPLES[0], SAMPLES[4], SAMPLES[0], SAMPLES[2]]
    bound = LowerBound(products, CPU)
    assert {part.product: part.count for part in bound.parts} == Counter(products)
    assert math.fsum(part.share for part in bound.parts) == pytest.approx(1)
    assert all(part.seconds > 0 for part in bound.parts)
    assert [part.share for part in bound.parts] == sorted((p.share for p in bound.parts), reverse=True)
    assert bound.flops == flops(products) == flops(record_products(bound.run))


# -- timing --------------------------------------------------------------------------------------------------------


def test_variants_take_turns():
    calls = []
    variants = {"a": [lambda: calls.append("a")], "b": [lambda: calls.append("b")]}
    times = interleave(variants, rounds=3, shortest=0.0)
    warmed_up = calls[:-6]
    assert warmed_up == sorted(warmed_up)
    assert set(warmed_up) == {"a", "b"}
    assert calls[-6:] == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for seconds in times.values() for second in seconds)


def test_short_variants_are_repeated_and_divided():
    calls = []
    interleave({"a": [lambda: calls.append(1)]}, rounds=1, shortest=0.001)
    assert len(calls) > 20


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"clock": "sun"}])
def test_timing_refuses(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}.*{next(iter(wrong.values()))}"):
        interleave({"a": [int]}, **wrong)


def test_workers_run_at_once_with_their_own_threads():
    together = threading.Barrier(2, timeout=30)
    seen = []

    def work():
        together.wait()  # fails unless both are running
        seen.append((threading.get_ident(), torch.get_num_threads()))

    before = torch.get_num_threads()
    with runner(2, threads_each=1) as run:
        run([work, work], 3)
    assert len(seen) == 6
    assert len({thread for thread, _ in seen}) == 2
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == before


def test_what_fails_in_a_worker_is_raised():
    with runner(2) as run, pytest.raises(ZeroDivisionError):
        run([lambda: 1 / 0, int], 1)


MEASURE_MEMORY = """
import torch
from avex.embedding.throughput.memory import peak_memory

for megabytes in (1, 200):
    print(peak_memory(lambda: torch.ones(megabytes * 250_000).sum(), torch.device("cpu")))
"""


def test_memory_is_that_of_the_work():
    # In a process of its own: this one may have been told to keep freed memory, and use it again.
    run = subprocess.run([sys.executable, "-c", MEASURE_MEMORY], check=True, capture_output=True, text=True)
    small, large = map(int, run.stdout.split())
    assert large > 200e6
    if Path("/proc/self/clear_refs").exists():  # else the peak is that of the whole process so far
        assert large - small > 150e6


# -- measuring -----------------------------------------------------------------------------------------------------


def test_a_model_of_ones_own():
    steps, before = [], torch.get_num_threads()
    model = Tiny().eval()
    results = measure(
        model,
        precisions=["fp32", "bf16", "float32"],
        batch_sizes=[1, 3],
        threads=1,
        rounds=2,
        on_step=steps.append,
    )
    assert [(r.precision, r.batch_size) for r in results] == [
        ("fp32", 1),
        ("fp32", 3),
        ("bf16", 1),
        ("bf16", 3),
    ]
    for result in results:
        assert (result.model, result.backend, result.device, result.window_s) == ("Tiny", "torch", "cpu", 1.0)
        assert (result.threads, result.workers, len(result.pass_seconds)) == (1, 1, 2)
        assert result.gflop_per_window == pytest.approx(TINY_GFLOP)
        assert result.bound_ratio > 0
        assert result.frontend_share is None
        assert {part.dtype for part in result.products} == {
            "float32" if result.precision == "fp32" else "bfloat16"
        }
    assert "loading" in steps
    assert torch.get_num_threads() == before
    assert model.precision == "fp32"
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_sessions_and_seconds():
    (result,) = measure(Tiny().eval(), batch_sizes=[2], workers=2, seconds=0.5, rounds=1)
    assert (result.workers, result.window_s) == (2, 0.5)
    assert result.gflop_per_window == pytest.approx(TINY_GFLOP / 2)
    assert result.realtime_factor == pytest.approx(2 * 2 * 0.5 / result.pass_seconds[0])


def test_birdnet_is_measured_as_embed_runs_it():
    plan = plan_bench("birdnet", weights="random")
    (result,) = measure(plan, batch_sizes=[1], rounds=1, threads=2)
    assert (result.backend, result.workers, result.window_s) == ("native", 2, 3.0)
    assert result.frontend_share > 0
    assert result.bound_ratio > 0
    # The published network's convolutions, from the file's own shapes: 0.643 GFLOP a window, its front end aside.
    assert result.gflop_per_window == pytest.approx(0.643, abs=0.001)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_sizes": []}, "batch_sizes is empty"),
        ({"precisions": []}, "precisions is empty"),
        ({"batch_sizes": [0]}, "batch size must be positive, not 0"),
        ({"seconds": -1}, "seconds must be positive"),
        ({"workers": 0}, "workers must be positive"),
        ({"precisions": ["fp64"]}, "Unknown precision 'fp64'"),
        ({"precisions": ["fp16"]}, "Use precision='bf16'"),
    ],
)
def test_what_cannot_be_measured(wrong, message):
    with pytest.raises(ConfigError, match=message):
        measure(Tiny().eval(), **{"batch_sizes": [1], "rounds": 1, **wrong})


def test_a_bare_module_is_refused():
    with pytest.raises(ConfigError, match="Linear cannot be measured"):
        measure(nn.Linear(2, 2))


# -- which weights -------------------------------------------------------------------------------------------------


def efficientnet_card(checkpoint):
    spec = ModelSpec(name="efficientnet", pretrained=False, device="cpu", audio_config=AudioConfig())
    return ModelCard(name="mine", model_spec=spec, checkpoint_path=checkpoint)


def test_nothing_is_downloaded(monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    plan = plan_bench(efficientnet_card("hf://nobody/nothing/weights.safetensors"))
    assert not plan.from_file
    assert "random weights" in plan.weights
    assert "not on this machine" in plan.weights
    assert isinstance(plan.load(), ModelBase)


def test_a_checkpoint_that_is_here_is_read(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(3)
    model = build_model("efficientnet", device="cpu", return_features_only=True)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    card = efficientnet_card(str(tmp_path / "own.safetensors"))
    plan = plan_bench(card)
    assert (plan.from_file, plan.weights) == (True, "weights of own.safetensors")
    name, expected = next(model.named_parameters())
    assert torch.equal(dict(plan.load().named_parameters())[name], expected)
    other = plan_bench(card, weights="random")
    assert not torch.equal(dict(other.load().named_parameters())[name], expected)


def test_what_can_be_planned():
    assert plan_bench("aves").backend == "torch"
    assert plan_bench("birdnet", weights="random").backend == "native"
    with pytest.raises(UnknownModelError, match="Did you mean 'birdnet'"):
        plan_bench("birdnte")
    with pytest.raises(ConfigError, match="no backend 'onnx'.*native or litert"):
        plan_bench("birdnet", backend="onnx")
    with pytest.raises(ConfigError, match="Unknown weights 'best'"):
        plan_bench("beats", weights="best")
    with pytest.raises(WeightsError, match="cannot have random weights"):
        plan_bench("perch_v2", weights="random")
    with pytest.raises(WeightsError, match="is its graph file"):  # not the network of the same name
        plan_bench("aves_base_bio_onnx")
    with pytest.raises(WeightsError, match="states no checkpoint"):
        plan_bench("beats", weights="download")


# -- results -------------------------------------------------------------------------------------------------------


def a_result(**changes):
    facts = {
        "model": "esp_aves2_sed_birdcode_beats_encoder",
        "backend": "torch",
        "weights": "random weights, which are as fast: the checkpoint is not on this machine",
        "device": "cpu",
        "device_name": "AMD EPYC",
        "precision": "fp32",
        "batch_size": 8,
        "workers": 1,
        "threads": 2,
        "window_s": 10.0,
        "compiled": False,
        "clock": "wall",
        "pass_seconds": (4.0, 5.0, 3.0),
        "frontend_seconds": (0.2, 1.0, 0.3),
        "bound_seconds": (3.8, 4.5, 2.4),
        "gflop_per_window": 92.7,
        "peak_memory_bytes": 1_234_000_000,
        "products": (
            ProductShare("product 3968 x 768 by 768 x 3072", "float32", 12, 224.7, "linear", 0.7, 180.2),
            *[ProductShare(f"shape {i}", "float32", 1, 0.1, "by rows", 0.03, 99.0) for i in range(10)],
        ),
    }
    return Throughput(**{**facts, **changes})


def test_figures_follow_from_times():
    result = a_result()
    assert result.realtime_factor == 20.0
    assert result.spread == 0.125  # quartiles 3.5 and 4.5
    assert a_result(pass_seconds=(4.0,), frontend_seconds=(), bound_seconds=()).spread is None
    assert result.ms_per_window == 500.0
    assert result.frontend_share == pytest.approx(0.1)  # of 0.05, 0.2 and 0.1
    assert result.bound_ratio == pytest.approx(0.9)  # of 0.95, 0.9 and 0.8
    assert result.bound_realtime_factor == pytest.approx(80 / 3.8)
    graph = a_result(frontend_seconds=(), bound_seconds=())
    assert (graph.frontend_share, graph.bound_ratio, graph.bound_realtime_factor) == (None, None, None)


def printed(width, results, verbose=False, json_file=None):
    text = io.StringIO()
    report = BenchReport(json_file, verbose, Console(file=text, width=width, highlight=False))
    report.add(results)
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(width):
    extremes = [
        a_result(),
        a_result(precision="bf16", batch_size=1024, pass_seconds=(1e-3,) * 3, window_s=100.0),
        a_result(
            pass_seconds=(400.0, 1200.0, 50.0), frontend_seconds=(), bound_seconds=(), peak_memory_bytes=None
        ),
    ]
    lines = printed(width, extremes, verbose=True)
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines if line.split()[:1] in (["fp32"], ["bf16"])]
    assert [row[:2] for row in rows] == [["fp32", "8"], ["bf16", "1024"], ["fp32", "8"]]
    assert rows[0][2:] == ["20.0", "±", "12", "%", "500", "10.0", "%", "0.90", "1.2", "GB"]
    assert rows[2][-3:] == ["–", "–", "–"]
    assert lines[0] == "esp_aves2_sed_birdcode_beats_encoder"
    assert any("5 other shapes" in line for line in lines)
    assert any(line.lstrip().startswith("70.0 %") and "3968 x 768" in line for line in lines)


def test_tables_of_several_models_line_up():
    def header(result):
        return next(line for line in printed(80, [result]) if "real time" in line)

    assert header(a_result()) == header(a_result(model="m", bound_seconds=(), peak_memory_bytes=None))
    assert speed_table([a_result()]).row_count == 1
    assert product_table(a_result()).renderable.row_count == 7


def test_all_figures_are_written(tmp_path):
    target = tmp_path / "speed.json"
    printed(80, [a_result()], json_file=target)
    document = json.loads(target.read_text())
    assert set(document) == {"schema", "machine", "results"}
    assert document["schema"] == 1
    assert document["machine"]["torch"] == torch.__version__
    (row,) = document["results"]
    assert row["pass_seconds"] == [4.0, 5.0, 3.0]
    assert (row["realtime_factor"], row["ms_per_window"]) == (20.0, 500.0)
    assert row["bound_ratio"] == pytest.approx(0.9)
    assert row["products"][0]["gflop_per_s"] == 180.2
