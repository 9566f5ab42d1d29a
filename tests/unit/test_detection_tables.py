"""Writing selection tables: bytes against hand-written files, names, streaming, atomicity."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from avex._core.errors import ConfigError, UnknownNameError
from avex.detection import (
    FORMATS,
    Detection,
    RecordingDetections,
    read_table,
    table_name,
    write_combined,
    write_recording_tables,
)
from avex.detection.formats import audacity, kaleidoscope, raven
from avex.detection.formats.parquet import read_run

GOLDEN = Path(__file__).parents[1] / "golden" / "detection"
RUN = {"card": "birdnet", "min_conf": 0.25}

DAWN = "field/Grünspecht dawn.wav"
POND = "field/sub/pond, 8k.wav"
GREEN = 'Pelophylax esculentus_Edible Frog, "green"'
RECORDINGS = [
    RecordingDetections(
        DAWN,
        9.5,
        48_000,
        2,
        (
            Detection(
                DAWN,
                0.0,
                3.0,
                "Picus viridis_Grünspecht",
                0.87,
                "Picus viridis",
                "Grünspecht",
                2,
                150.0,
                15e3,
            ),
            # Sample 385,000 of 48 kHz; on the mix of both channels; the window was padded behind the end.
            Detection(DAWN, 385_000 / 48_000, 529_000 / 48_000, "grtit1", 0.3333, channel=0),
        ),
        "2024-05-01T04:30:00Z",
    ),
    RecordingDetections("field/quiet.wav", 60.25, 48_000, 1, ()),
    RecordingDetections(
        POND,
        30.0,
        8_000,
        1,
        (
            Detection(
                POND, 3.0, 6.0, GREEN, 1.0, "Pelophylax esculentus", 'Edible Frog, "green"', 1, 150.0, 15e3
            ),
        ),
    ),
]


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


class TestGolden:
    @pytest.mark.parametrize(
        ("fmt", "name"),
        [
            ("raven", "combined.raven.txt"),
            ("csv", "combined.birdnet.csv"),
            ("kaleidoscope", "combined.kaleidoscope.csv"),
            ("json", "combined.json"),
        ],
    )
    def test_combined(self, tmp_path: Path, fmt: str, name: str) -> None:
        (path,) = write_combined(RECORDINGS, tmp_path, [fmt], "birdnet", run=RUN)
        assert path.read_bytes() == golden(name)

    @pytest.mark.parametrize(("index", "name"), [(0, "dawn"), (1, "quiet"), (2, "pond")])
    def test_raven_of_one_recording(self, tmp_path: Path, index: int, name: str) -> None:
        (path,) = write_recording_tables(RECORDINGS[index], tmp_path, ["raven"], "birdnet", name)
        assert path.read_bytes() == golden(f"{name}.raven.txt")

    def test_audacity(self, tmp_path: Path) -> None:
        options = {"audacity": {"frequencies": True, "with_confidence": True}}
        (plain,) = write_recording_tables(RECORDINGS[0], tmp_path, ["audacity"], "birdnet", "plain")
        (full,) = write_recording_tables(
            RECORDINGS[0], tmp_path, ["audacity"], "birdnet", "full", options=options
        )
        assert plain.read_bytes() == golden("dawn.audacity.txt")
        assert full.read_bytes() == golden("dawn.audacity-frequencies.txt")

    def test_parquet(self, tmp_path: Path) -> None:
        (path,) = write_combined(RECORDINGS, tmp_path, ["parquet"], "birdnet", run=RUN)
        table = pq.read_table(path)
        assert table.schema.names == [
            "recording", "start_s", "end_s", "channel", "label", "scientific_name", "common_name",
            "confidence", "low_hz", "high_hz", "sample_rate", "datetime_utc",
        ]  # fmt: skip
        assert [str(table.schema.field(name).type) for name in ("confidence", "start_s")] == [
            "float",
            "double",
        ]
        assert table["sample_rate"].to_pylist() == [48_000, 48_000, 8_000]
        start = datetime(2024, 5, 1, 4, 30, tzinfo=timezone.utc)
        assert table["datetime_utc"].to_pylist() == [start, start, None]
        footer = json.loads(table.schema.metadata[b"avex"])
        assert footer == {"kind": "detections", "schema_version": 1, "run": RUN}
        assert read_run(path) == RUN


class TestRaven:
    def test_band_stays_below_nyquist(self) -> None:
        calls = [(0.0, 0.0), (150.0, 15_000.0), (5000.0, 9000.0), (100.0, 100.0001), (50.0, 3999.99996)]
        detections = tuple(
            Detection("a.wav", 0, 1, "x", 0.5, low_hz=low, high_hz=high) for low, high in calls
        )
        lines = self.lines([RecordingDetections("a.wav", 9.0, 8_000, 1, detections)])
        bands = [(line["Low Freq (Hz)"], line["High Freq (Hz)"]) for line in lines]
        whole = ("0.0", "4000.0")
        assert bands == [whole, ("150.0", "4000.0"), whole, whole, ("50.0", "4000.0")]

    def test_40000_files_do_not_drift(self) -> None:
        # Recorders stop a little off the full hour, so floats summed one by one lose the sample.
        quiet = RecordingDetections("q.wav", 3599.9998125, 48_000, 1, ())
        last = RecordingDetections("z.wav", 60.0, 48_000, 1, (Detection("z.wav", 1.5, 3.0, "x", 0.5),))

        def recordings() -> Iterator[RecordingDetections]:
            yield from (quiet for _ in range(40_000))
            yield last

        (line,) = self.lines(recordings())
        assert line["Begin Time (s)"] == "143999994.0"  # 40,000 x 3599.9998125 + 1.5, by hand
        assert line["File Offset (s)"] == "1.5"

    def test_names_cannot_break_the_table(self, tmp_path: Path) -> None:
        name = "odd\tname\nwith\rbreaks ␤ and \udcfc.wav"
        found = Detection(name, 0.0, 1.0, "tab\tlabel", 0.5, common_name="C:\\new\\table ␛")
        path = tmp_path / "table.txt"
        raven.write(path, [RecordingDetections(name, 9.0, 8_000, 1, (found,))])
        content = path.read_text(encoding="utf-8")
        assert content.count("\n") == 2
        assert "odd␉name␤with␍breaks ␛␤ and ␛uDCFC.wav" in content
        (back,) = raven.read(path)
        assert (back.recording, back.label, back.common_name) == (name, found.label, found.common_name)

    @staticmethod
    def lines(recordings: object) -> list[dict[str, str]]:
        file = io.StringIO()
        raven.write(file, recordings)  # type: ignore[arg-type]
        header, *lines = (line.split("\t") for line in file.getvalue().splitlines())
        return [dict(zip(header, line, strict=True)) for line in lines]


class TestKaleidoscope:
    def test_confidence_must_be_a_probability(self) -> None:
        logit = RecordingDetections("a.wav", 9.0, 8_000, 1, (Detection("a.wav", 0, 1, "x", 4.2),))
        with pytest.raises(ConfigError, match=r"confidence 4\.2"):
            kaleidoscope.write(io.StringIO(), [logit])

    @pytest.mark.parametrize(
        ("names", "places"),
        [
            (["/data/a/1.wav", "/data/b/c/2.wav"], [("/data", "a", "1.wav"), ("/data", "b/c", "2.wav")]),
            (["/1.wav", "/b/2.wav"], [("/", "", "1.wav"), ("/", "b", "2.wav")]),
            (["ab/1.wav", "abc/2.wav"], [("", "ab", "1.wav"), ("", "abc", "2.wav")]),
            (["1.wav", "/b/2.wav"], [("", "", "1.wav"), ("", "/b", "2.wav")]),
            (["C:\\d\\a\\1.wav", "C:\\d\\2.wav"], [("C:\\d", "a", "1.wav"), ("C:\\d", "", "2.wav")]),
            (["s3://bucket/x/1.wav"], [("s3://bucket/x", "", "1.wav")]),
        ],
    )
    def test_paths_are_split_and_joined(
        self, tmp_path: Path, names: list[str], places: list[tuple[str, str, str]]
    ) -> None:
        path = tmp_path / "k.csv"
        kaleidoscope.write(path, [self.recording(name) for name in names])
        lines = path.read_text().splitlines()[1:]
        assert [tuple(line.split(",")[:3]) for line in lines] == places
        assert [found.recording for found in kaleidoscope.read(path)] == names

    def test_root_can_be_given_for_a_stream(self) -> None:
        for root, name, where in (
            ("/data", "/data/a/1.wav", "/data,a,1.wav,0,"),
            ("/data/", "/data/a/1.wav", "/data,a,1.wav,0,"),
            ("", "a/1.wav", ",a,1.wav,0,"),
            ("C:/data", "C:/data/a/1.wav", "C:/data,a,1.wav,0,"),
            ("C:\\data", "C:\\data\\a\\1.wav", "C:\\data,a,1.wav,0,"),
        ):
            file = io.StringIO()
            kaleidoscope.write(file, iter([self.recording(name)]), root=root)
            assert file.getvalue().splitlines()[1].startswith(where)
        with pytest.raises(ConfigError, match="root"):
            kaleidoscope.write(io.StringIO(), iter([self.recording("/data/a/1.wav")]))
        with pytest.raises(ConfigError, match="not below '/elsewhere/'"):
            kaleidoscope.write(io.StringIO(), [self.recording("/data/a/1.wav")], root="/elsewhere")

    @staticmethod
    def recording(name: str) -> RecordingDetections:
        return RecordingDetections(name, 9.0, 8_000, 1, (Detection(name, 0.0, 1.0, "x", 0.5),))


class TestNames:
    def test_birdnet_names_are_those_that_its_users_know(self) -> None:
        assert [table_name("XC1", "birdnet", fmt) for fmt in FORMATS] == [
            "XC1.BirdNET.selection.table.txt",
            "XC1.BirdNET.results.csv",
            "XC1.BirdNET.results.txt",
            "XC1.BirdNET.results.kaleidoscope.csv",
            "XC1.BirdNET.results.parquet",
            "XC1.BirdNET.results.json",
        ]
        assert table_name("a/b", "birdnet_v2.4", FORMATS["csv"]) == "a/b.BirdNET.results.csv"
        assert table_name("XC1", "birdnet_frogs", "csv") == "XC1.birdnet_frogs.results.csv"
        assert table_name("XC1", "perch_v2", "csv") == "XC1.perch_v2.results.csv"

    @pytest.mark.parametrize(
        ("stem", "model"),
        [("", "m"), ("/etc/x", "m"), ("../x", "m"), ("a/../../x", "m"), ("x", ""), ("x", "a/b")],
    )
    def test_tables_stay_in_their_folder(self, stem: str, model: str) -> None:
        with pytest.raises(ConfigError, match="Expected"):
            table_name(stem, model, "csv")

    def test_unknown_format(self) -> None:
        with pytest.raises(UnknownNameError, match=r"Unknown table format 'ravn'. Did you mean 'raven'\?"):
            table_name("x", "m", "ravn")


class TestWriting:
    def test_all_formats_of_one_recording_at_once(self, tmp_path: Path) -> None:
        paths = write_recording_tables(
            RECORDINGS[0], tmp_path / "new", list(FORMATS), "birdnet", "site A/dawn", run=RUN
        )
        assert [path.name for path in paths] == [table_name("dawn", "birdnet", fmt) for fmt in FORMATS]
        assert sorted((tmp_path / "new" / "site A").iterdir()) == sorted(paths)  # and no temporary files

    def test_audacity_is_refused_for_several_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"'audacity' has no form for several.*raven, csv"):
            write_combined(RECORDINGS, tmp_path, ["raven", "audacity"], "birdnet")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ConfigError, match="several were given"):
            audacity.write(io.StringIO(), RECORDINGS)
        with pytest.raises(ConfigError, match="none was given"):
            audacity.write(io.StringIO(), [])

    def test_a_function_is_called_once_per_pass_and_an_iterator_is_refused(self, tmp_path: Path) -> None:
        formats = ["csv", "kaleidoscope", "json"]
        paths = write_combined(lambda: iter(RECORDINGS), tmp_path, formats, "birdnet", stem="all", run=RUN)
        names = ["combined.birdnet.csv", "combined.kaleidoscope.csv", "combined.json"]
        assert [path.read_bytes() for path in paths] == [golden(name) for name in names]
        with pytest.raises(ConfigError, match="one-way iterator"):
            write_combined(iter(RECORDINGS), tmp_path, ["csv"], "birdnet")

    def test_wrong_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"\['raven'\]"):
            write_combined(RECORDINGS, tmp_path, "raven", "birdnet")
        with pytest.raises(ConfigError, match="options for 'audacity'"):
            write_combined(RECORDINGS, tmp_path, ["raven"], "birdnet", options={"audacity": {}})

    @pytest.mark.parametrize("fmt", [name for name, fmt in FORMATS.items() if fmt.combined])
    def test_a_failure_leaves_the_old_table(self, tmp_path: Path, fmt: str) -> None:
        def broken() -> Iterator[RecordingDetections]:
            yield RECORDINGS[0]
            raise OSError("the disk was pulled out")

        (path,) = write_combined(RECORDINGS[:2], tmp_path, [fmt], "birdnet")
        before = path.read_bytes()
        with pytest.raises(OSError, match="pulled out"):
            write_combined(broken, tmp_path, [fmt], "birdnet")
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("fmt", [name for name, fmt in FORMATS.items() if fmt.combined])
    def test_memory_does_not_grow_with_the_run(
        self, tmp_path: Path, fmt: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A long list would need about 1.8 MB; row groups are made small so that Parquet streams here too.
        monkeypatch.setattr("avex.detection.formats.parquet.ROW_GROUP", 512)
        count, each = 500, 20

        def recordings() -> Iterator[RecordingDetections]:
            for index in range(count):
                name = f"site/{index}.wav"
                found = tuple(Detection(name, float(s), s + 3.0, "x", 0.5) for s in range(each))
                yield RecordingDetections(name, 60.0, 48_000, 1, found)

        tracemalloc.start()
        try:
            (path,) = write_combined(recordings, tmp_path, [fmt], "birdnet")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000
        assert len(read_table(path)) == count * each

    def test_numpy_scalars_are_written_like_floats(self, tmp_path: Path) -> None:
        def one(number: type) -> RecordingDetections:
            found = Detection("a.wav", number(1.5), number(3.0), "x", number(0.5), channel=int(number(1)))
            return RecordingDetections("a.wav", number(9.0), 8_000, 1, (found,))

        formats = [name for name in FORMATS if name != "parquet"]
        plain = write_recording_tables(one(float), tmp_path, formats, "m", "plain")
        numpy = write_recording_tables(one(np.float32), tmp_path, formats, "m", "numpy")
        assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in numpy]
        (parquet,) = write_recording_tables(one(np.float32), tmp_path, ["parquet"], "m", "numpy")
        assert read_table(parquet) == list(one(float).detections)
