"""Which files of a local data set are the configuration that a task names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mosld_bench.inputs.configuration import configuration

_CARD = "---\nconfigs:\n- {config_name: main, data_files: train.jsonl}\n---\nA data set.\n"


def _folder(root: Path, files: Sequence[str], card: str = "") -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("{}\n")
    if card:
        (root / "README.md").write_text(card)
    return root


def test_a_card_that_lists_configurations_decides(tmp_path: Path) -> None:
    assert configuration(_folder(tmp_path, ["main/train.jsonl"], _CARD), "main") == (tmp_path, "main")


@pytest.mark.parametrize("card", ["", "---\nlicense: mit\n---\n", "A data set.\n"])
def test_a_folder_of_its_name_is_a_configuration(tmp_path: Path, card: str) -> None:
    folder = _folder(tmp_path, ["rc.nocontext/train.jsonl", "rc/train.jsonl"], card)
    assert configuration(folder, "rc.nocontext") == (tmp_path / "rc.nocontext", None)
    assert configuration(folder, None) == (tmp_path, None)


@pytest.mark.parametrize(
    ("files", "one"),
    [
        (["train.jsonl", "validation.jsonl"], True),
        (["train.csv", "dev.csv", "test.csv"], True),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"], True),
        (["train_s.jsonl", "train_xl.jsonl", "validation.jsonl"], False),
        (["train.jsonl", "train-more.jsonl"], False),
        (["train.jsonl", "train.csv"], False),
        (["boolq_train.jsonl"], False),
        (["elsewhere/train.jsonl"], False),
    ],
)
def test_one_file_a_split_is_the_only_configuration(files: list[str], one: bool, tmp_path: Path) -> None:
    assert configuration(_folder(tmp_path, files), "xl") == (tmp_path, None if one else "xl")
