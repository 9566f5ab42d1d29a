"""Species lists and the summary of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from avex._core.errors import ConfigError
from avex.detection import Detection, RecordingDetections, SpeciesFilter, SpeciesSummary, summarise

LABELS = [
    "Turdus merula_Eurasian Blackbird",
    "Parus major_Great Tit",
    "Picus viridis_Grünspecht",
    "Strix aluco",
    "Engine_Engine",
]


class TestSpeciesFilter:
    @pytest.mark.parametrize(
        ("entry", "index"),
        [
            ("Turdus merula_Eurasian Blackbird", 0),
            ("turdus MERULA", 0),
            ("eurasian  blackbird", 0),
            ("picus viridis_GRU\u0308NSPECHT", 2),  # decomposed, as file systems of Apple write it
            ("Strix aluco", 3),
            ("Strix aluco_Tawny Owl", 3),
            ("engine", 4),
        ],
    )
    def test_one_entry(self, entry: str, index: int) -> None:
        mask = SpeciesFilter((entry,)).mask(LABELS)
        assert mask.dtype == bool
        assert mask.nonzero()[0].tolist() == [index]

    def test_file_with_comments_bom_and_crlf(self, tmp_path: Path) -> None:
        path = tmp_path / "list.txt"
        path.write_bytes("\ufeff# my garden\r\nGreat Tit  # feeder\r\n\r\n  Strix aluco\r\n".encode())
        species = SpeciesFilter.from_file(path)
        assert species.entries == ("Great Tit", "Strix aluco")
        assert species.mask(LABELS).tolist() == [False, True, False, True, False]

    def test_unknown_entries_are_listed_with_suggestions(self) -> None:
        entries = ("Great Tit", "Turdus merulla", *(f"Zz {i}" for i in range(6)))
        with pytest.raises(ConfigError) as error:
            SpeciesFilter(entries, "garden.txt").mask(LABELS)
        message = str(error.value)
        assert "7 of 8 entries of 'garden.txt'" in message
        assert "'Turdus merulla'. Did you mean 'Turdus merula'" in message
        assert "'Zz 3'" in message
        assert "'Zz 4'" not in message
        assert "And 2 more." in message

    def test_a_common_name_in_another_language_is_not_guessed(self) -> None:
        with pytest.raises(ConfigError, match="Parus major_Kohlmeise"):
            SpeciesFilter(("Parus major_Kohlmeise",)).mask(LABELS)

    def test_empty_list(self, tmp_path: Path) -> None:
        path = tmp_path / "list.txt"
        path.write_text("# nothing\n\n")
        with pytest.raises(ConfigError, match=r"list\.txt' names no species"):
            SpeciesFilter.from_file(path)

    def test_unreadable_list(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no species list at"):
            SpeciesFilter.from_file(tmp_path / "none.txt")
        (tmp_path / "latin.txt").write_bytes("Grünspecht".encode("latin-1"))
        with pytest.raises(ConfigError, match="not UTF-8"):
            SpeciesFilter.from_file(tmp_path / "latin.txt")


def test_summary() -> None:
    def recording(name: str, *heard: tuple[str, float]) -> RecordingDetections:
        found = tuple(
            Detection(
                name, 3.0 * i, 3.0 * i + 3, label, confidence, "Parus major" if label == "grtit1" else ""
            )
            for i, (label, confidence) in enumerate(heard)
        )
        return RecordingDetections(name, 60.0, 48_000, 1, found)

    lines = summarise(
        iter(
            [
                recording("a", ("wren", 0.4), ("grtit1", 0.5), ("grtit1", 0.9)),
                recording("b"),
                recording("c", ("wren", 0.7), ("owl", 0.3)),
            ]
        )
    )
    assert lines == [
        SpeciesSummary("grtit1", "Parus major", "", 2, 1, 0.9),
        SpeciesSummary("wren", "", "", 2, 2, 0.7),
        SpeciesSummary("owl", "", "", 1, 1, 0.3),
    ]
    assert summarise([]) == []
