"""Reading selection tables, those of other programs included."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avex._core.errors import ConfigError, UnknownNameError
from avex.detection import Detection, read_audacity, read_raven, read_table, sniff_format
from avex.detection.formats import json as json_format
from avex.detection.formats import kaleidoscope

GOLDEN = Path(__file__).parents[1] / "golden" / "detection"


def table(
    folder: Path, *lines: str, name: str = "table.txt", end: str = "\n", encoding: str = "utf-8"
) -> Path:
    path = folder / name
    path.write_bytes("".join(line.replace("|", "\t") + end for line in lines).encode(encoding))
    return path


def test_raven_golden_is_read_back() -> None:
    dawn, pond = "field/Grünspecht dawn.wav", "field/sub/pond, 8k.wav"
    common = 'Edible Frog, "green"'
    green = f"Pelophylax esculentus_{common}"
    assert read_table(GOLDEN / "combined.raven.txt") == [
        Detection(
            dawn, 0.0, 3.0, "Picus viridis_Grünspecht", 0.87, "Picus viridis", "Grünspecht", 2, 150.0, 15e3
        ),
        Detection(dawn, 8.020833, 9.5, "grtit1", 0.3333, low_hz=0.0, high_hz=24e3),
        Detection(pond, 3.0, 6.0, green, 1.0, "Pelophylax esculentus", common, 1, 150.0, 4e3),
    ]


class TestRaven:
    def test_export_with_both_views_crlf_and_bom(self, tmp_path: Path) -> None:
        path = table(
            tmp_path,
            "Selection|View|Channel|Begin Time (s)|End Time (s)|Low Freq (Hz)|High Freq (Hz)|Delta (s)|Species",
            "1|Waveform 1|1|0.512345678|1.25|0.0|24000.0|0.7377|Zaunkönig",
            "1|Spectrogram 1|1|0.512345678|1.25|2100.5|8000.0|0.7377|Zaunkönig",
            "2|Spectrogram 1|1|4.0|4.5|900.0|1200.0|0.5|",
            "2|Waveform 1|1|4.0|4.5|0.0|24000.0|0.5|",
            name="20240501_043000.Table.1.selections.txt",
            end="\r\n",
            encoding="utf-8-sig",
        )
        first, second = read_raven(path)
        assert first == Detection(
            "20240501_043000", 0.512345678, 1.25, "Zaunkönig", 1.0, low_hz=2100.5, high_hz=8000.0
        )
        assert (second.label, second.low_hz) == ("", 900.0)

    def test_waveform_only_and_repeated_numbers_are_kept(self, tmp_path: Path) -> None:
        path = table(
            tmp_path,
            "Species|End Time (s)|Begin Time (s)|View|Selection|Begin File",
            "wren|2.0|1.0|Waveform 1|1|a.wav",
            "robin|4.0|3.0|Waveform 1|2|a.wav",
            "wren|2.0|1.0|Spectrogram 1|1|b.wav",
        )
        found = read_raven(path, times_in_file=True)
        assert [(d.recording, d.label) for d in found] == [
            ("a.wav", "wren"),
            ("a.wav", "robin"),
            ("b.wav", "wren"),
        ]

    @pytest.mark.parametrize("name", ["Label", "species", "Annotation", "Common Name", "SPECIES CODE"])
    def test_label_column_is_found(self, tmp_path: Path, name: str) -> None:
        path = table(tmp_path, f"Begin Time (s)|End Time (s)|{name}", "1|2|wren")
        assert read_raven(path)[0].label == "wren"

    def test_label_column_can_be_chosen(self, tmp_path: Path) -> None:
        path = table(tmp_path, "Begin Time (s)|End Time (s)|Species|Call Type|Score", "1|2|wren|song|0.75")
        assert read_raven(path, "call type")[0].label == "song"
        assert read_raven(path, recording="x.flac")[0].recording == "x.flac"
        assert read_raven(path)[0].confidence == 0.75
        with pytest.raises(ConfigError, match=r"no column 'Call Typ'\. Did you mean 'Call Type'"):
            read_raven(path, "Call Typ")

    def test_no_label_column_names_those_there(self, tmp_path: Path) -> None:
        path = table(tmp_path, "Begin Time (s)|End Time (s)|Notes", "1|2|wren")
        with pytest.raises(
            ConfigError, match=r"no column holds the label.*found 'Begin.*'Notes'.*label_column="
        ):
            read_raven(path)

    def test_cumulative_times_go_back_into_the_file(self, tmp_path: Path) -> None:
        path = table(
            tmp_path,
            "Begin Time (s)|End Time (s)|File Offset (s)|Begin File|Label",
            "143999997.1|143999999.6|0.6|z.wav|wren",
        )
        (found,) = read_raven(path)
        assert (found.recording, found.start_s, found.end_s) == ("z.wav", 0.6, 3.1)

    def test_times_of_several_files_without_offset_are_not_guessed(self, tmp_path: Path) -> None:
        lines = ("Begin Time (s)|End Time (s)|Begin File|Label", "1|2|a.wav|x", "3|4|b.wav|x")
        path = table(tmp_path, *lines)
        with pytest.raises(ConfigError, match=r"covers 2 files \('a.wav', 'b.wav'.*times_in_file=True"):
            read_raven(path)
        assert [d.start_s for d in read_raven(path, times_in_file=True)] == [1.0, 3.0]
        assert [d.start_s for d in read_raven(table(tmp_path, *lines[:2]))] == [1.0]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("one|2|x|1", "line 3, column 'Begin Time .s.': found 'one', expected a number"),
            ("|2|x|1", "line 3, column 'Begin Time .s.': found ''"),
            ("1", "line 3, column 'End Time .s.': found ''"),
            ("1,5|2|x|1", "found '1,5'.*decimals with a point"),
            ("inf|2|x|1", "found 'inf'"),
            ("3|2|x|1", "line 3: Detection 'x'.*runs from 3.0 s to 2.0 s"),
            ("1|2|x|1.5", "column 'Channel': found '1.5', expected a whole number"),
            ("1|2|x|1|too|much", "line 3: found 6 cells, expected 4"),
        ],
    )
    def test_messages_name_the_place(self, tmp_path: Path, line: str, message: str) -> None:
        path = table(tmp_path, "Begin Time (s)|End Time (s)|Label|Channel", "0|1|x|1", line)
        with pytest.raises(ConfigError, match=message):
            read_raven(path)

    def test_encodings(self, tmp_path: Path) -> None:
        path = table(tmp_path, "Begin Time (s)|End Time (s)|Label", "0|1|Zaunkönig", encoding="cp1252")
        with pytest.raises(ConfigError, match=r"is not utf-8 text.*cp1252"):
            read_raven(path)
        assert read_raven(path, encoding="cp1252")[0].label == "Zaunkönig"
        with pytest.raises(ConfigError, match="Unknown encoding 'klingon'"):
            read_raven(path, encoding="klingon")

    def test_missing_and_empty_files(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no table at"):
            read_raven(tmp_path / "none.txt")
        with pytest.raises(ConfigError, match="no table at"):
            read_raven(tmp_path)
        with pytest.raises(ConfigError, match="is empty"):
            read_raven(table(tmp_path))
        with pytest.raises(ConfigError, match="no column 'End Time"):
            read_raven(table(tmp_path, "Begin Time (s)|Label"))

    def test_windows_paths_are_left_alone(self, tmp_path: Path) -> None:
        path = table(tmp_path, "Begin Time (s)|End Time (s)|Label|Begin Path", r"0|1|x|C:\new\table\r.wav")
        assert read_raven(path)[0].recording == r"C:\new\table\r.wav"


class TestAudacity:
    def test_spectral_labels(self, tmp_path: Path) -> None:
        path = table(
            tmp_path,
            "2.150000|2.150000|point label",
            "\\|6928.456|6928.456",
            "3.4|6.1|region with spaces",
            "\\|-1.000000|6334.588867",
            "7|8",
            "\\|100.0|-1.0",
            name="dawn.txt",
        )
        assert read_audacity(path) == [
            Detection("dawn", 2.15, 2.15, "point label", 1.0, low_hz=6928.456, high_hz=6928.456),
            Detection("dawn", 3.4, 6.1, "region with spaces", 1.0, high_hz=6334.588867),
            Detection("dawn", 7.0, 8.0, "", 1.0, low_hz=100.0),
        ]

    def test_confidence_in_the_label_or_in_a_fourth_column(self, tmp_path: Path) -> None:
        (found,) = read_audacity(
            table(tmp_path, "0|3|Great Tit 0.8700"), recording="a.wav", with_confidence=True
        )
        assert (found.recording, found.label, found.confidence) == ("a.wav", "Great Tit", 0.87)
        (found,) = read_audacity(table(tmp_path, "0|3|Great Tit, Parus major|0.5"))
        assert (found.label, found.confidence) == ("Great Tit, Parus major", 0.5)
        (found,) = read_audacity(table(tmp_path, "0|3|Great Tit|0.5"), with_confidence=True)
        assert (found.label, found.confidence) == ("Great Tit", 0.5)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("no label here", "line 2: found 1 columns"),
            ("0|x|label", r"line 2, column 2 \(end\): found 'x'"),
            ("1|0|label", "line 2: Detection 'label'"),
            ("1|2|wren", "line 3: found 2 columns"),
        ],
    )
    def test_messages_name_the_place(self, tmp_path: Path, line: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            read_audacity(table(tmp_path, "0|1|ok", line, "\\|100"))

    def test_stray_frequency_line(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="line 1: found a frequency line"):
            read_audacity(table(tmp_path, "\\|1|2", "0|1|x"))
        with pytest.raises(ConfigError, match="line 2: Detection"):
            read_audacity(table(tmp_path, "0|1|x", "\\|3|2"))


class TestKaleidoscope:
    LINES = (
        "INDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,Fmin,TOP1MATCH*,TOP1DIST,MANUAL ID*",
        "D:\\bats\\2024,night1,S4U_20240501.wav,1,2.5,0.5,30.1,PIPPIP,0.25,",
        "D:\\bats\\2024,night1,S4U_20240501.wav,0,3.25,0.5,30.1,NYCNOC,1.4,PIPNAT",
    )

    def test_automatic_labels(self, tmp_path: Path) -> None:
        name = "D:\\bats\\2024\\night1\\S4U_20240501.wav"
        assert read_table(table(tmp_path, *self.LINES)) == [
            Detection(name, 2.5, 3.0, "PIPPIP", 0.75, channel=2),
            Detection(name, 3.25, 3.75, "NYCNOC", 0.0, channel=1),
        ]

    def test_reviewed_labels(self, tmp_path: Path) -> None:
        (found,) = kaleidoscope.read(table(tmp_path, *self.LINES), "MANUAL ID")
        assert (found.start_s, found.label, found.confidence) == (3.25, "PIPNAT", 1.0)
        lines = "IN FILE,OFFSET,DURATION,MANUAL ID", "a.wav,0,1, ", "a.wav,2,1,PIPPIP"
        assert [d.start_s for d in kaleidoscope.read(table(tmp_path, *lines), "MANUAL ID")] == [2]


class TestBirdnetCsv:
    HEADER = "Start (s),End (s),Scientific name,Common name,Confidence,File"

    def test_further_columns_and_other_order(self, tmp_path: Path) -> None:
        path = table(
            tmp_path,
            "File,Start (s),End (s),Scientific name,Common name,Confidence,lat",
            "a b.wav,0.0,3.0,Parus major,Great Tit,0.9,52.5",
        )
        assert read_table(path) == [
            Detection("a b.wav", 0.0, 3.0, "Parus major_Great Tit", 0.9, "Parus major", "Great Tit")
        ]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('0,3,a,"b,0.9,x.wav', "not valid CSV"),
            ("0,3,a,b,,x.wav", "line 2, column 'Confidence': found ''"),
            ("0,3,a,b,c,0.9,x.wav", "line 2: found 7 cells, expected 6"),
        ],
    )
    def test_messages_name_the_place(self, tmp_path: Path, line: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            read_table(table(tmp_path, self.HEADER, line))

    def test_missing_column(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no column 'Common name'"):
            read_table(table(tmp_path, "Start (s),End (s),Scientific name,Confidence,File"))


class TestJsonAndParquet:
    def test_json_keeps_recordings_without_detections(self) -> None:
        recordings = json_format.read_recordings(GOLDEN / "combined.json")
        assert [(r.recording, len(r.detections)) for r in recordings] == [
            ("field/Grünspecht dawn.wav", 2),
            ("field/quiet.wav", 0),
            ("field/sub/pond, 8k.wav", 1),
        ]
        assert recordings[0].datetime_utc == "2024-05-01T04:30:00Z"
        assert recordings[0].detections[1].start_s == 385_000 / 48_000

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"run" 1}', "line 1, column 8: not valid JSON"),
            ("[]", "holds a list"),
            ('{"schema_version": 2, "recordings": []}', "schema version 2"),
            ('{"results": []}', "schema version None and the keys 'results'"),
            ('{"schema_version": 1, "recordings": [{}]}', "recording 1: a field is missing.*'recording'"),
            ('{"schema_version": 1, "recordings": [7]}', "recording 1: a field is missing"),
        ],
    )
    def test_wrong_json(self, tmp_path: Path, content: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            json_format.read(table(tmp_path, content))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"start_s": "soon"}, "recording 1: a field"),
            ({"start_s": 9.0}, "recording 1: Detection 'x'"),
            ({"colour": "red"}, "recording 1: a field.*colour"),
        ],
    )
    def test_wrong_detection_in_json(self, tmp_path: Path, change: dict[str, object], message: str) -> None:
        found = {"start_s": 0.0, "end_s": 1.0, "label": "x", "confidence": 0.5, **change}
        recording = {
            "recording": "a",
            "duration_s": 9.0,
            "sample_rate": 1,
            "channels": 1,
            "detections": [found],
        }
        path = table(tmp_path, json.dumps({"schema_version": 1, "recordings": [recording]}))
        with pytest.raises(ConfigError, match=message):
            json_format.read(path)

    def test_parquet_by_others(self, tmp_path: Path) -> None:
        columns = {"recording": ["a.wav"], "start_s": [1.0], "end_s": [2.0], "label": ["wren"], "site": ["B"]}
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        assert read_table(tmp_path / "t.parquet") == [Detection("a.wav", 1.0, 2.0, "wren", 1.0)]
        pq.write_table(pa.table({**columns, "start_s": [None]}), tmp_path / "t.parquet")
        with pytest.raises(ConfigError, match=r"row 1: a field is missing.*start_s"):
            read_table(tmp_path / "t.parquet")
        pq.write_table(pa.table({"label": ["wren"]}), tmp_path / "t.parquet")
        with pytest.raises(ConfigError, match="no column 'recording'"):
            read_table(tmp_path / "t.parquet")

    @pytest.mark.parametrize(
        "footer", [{"kind": "detections", "schema_version": 2}, {"schema_version": 1, "header": {}}]
    )
    def test_other_avex_parquet(self, tmp_path: Path, footer: dict[str, object]) -> None:
        data = pa.table({"recording": ["a.wav"]}).replace_schema_metadata(
            {b"avex": json.dumps(footer).encode()}
        )
        pq.write_table(data, tmp_path / "t.parquet")
        with pytest.raises(ConfigError, match="Expected detections up to version 1"):
            read_table(tmp_path / "t.parquet")

    def test_damaged_parquet(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="damaged"):
            read_table(table(tmp_path, "PAR1 but no more"))
        with pytest.raises(ConfigError, match="no table at"):
            read_table(tmp_path / "none.parquet", "parquet")


class TestSniffing:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("combined.raven.txt", "raven"),
            ("quiet.raven.txt", "raven"),
            ("combined.birdnet.csv", "csv"),
            ("combined.kaleidoscope.csv", "kaleidoscope"),
            ("combined.json", "json"),
            ("dawn.audacity.txt", "audacity"),
        ],
    )
    def test_golden_files(self, name: str, expected: str) -> None:
        assert sniff_format(GOLDEN / name).name == expected

    def test_empty_label_track_is_known_by_its_name_only(self, tmp_path: Path) -> None:
        assert read_table(table(tmp_path, name="a.BirdNET.results.txt")) == []
        with pytest.raises(ConfigError, match="no table that avex knows"):
            read_table(table(tmp_path, name="a.txt"))

    def test_format_can_be_said(self, tmp_path: Path) -> None:
        path = table(tmp_path, "Begin Time (s)|End Time (s)|Species|Note", "1|2|wren|song")
        assert read_table(path, "raven", label_column="Note")[0].label == "song"
        with pytest.raises(UnknownNameError, match="Unknown table format 'excel'"):
            read_table(path, "excel")

    @pytest.mark.parametrize("content", ["hello world", "a;b;c", "1 2 label"])
    def test_other_text(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(ConfigError, match="no table that avex knows"):
            read_table(table(tmp_path, content))
