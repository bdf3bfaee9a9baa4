"""Held-out text of the kind that the embedded model was pre-trained on: what fine-tuning may make it forget.

`python -m mosld_bench.embedded.held_out` writes `tasks/embedded/data/emb_text_test.parquet`, the same file every time.
The documents are by the same writers from the same tables, with another seed, and none of them is among those that the
model was pre-trained on. Short documents come again in any long text, so that it is the longer ones that are left: they
have 35 words on the mean, all documents 31.
"""

import argparse
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mosld_bench.embedded import text
from mosld_bench.embedded.items import DATA_DIR

SEED = 2
DOCUMENTS = 300
FILE = "emb_text_test.parquet"


def documents(seen: set[str]) -> list[str]:
    """Documents that are not ``seen``, each once."""
    stream = dict.fromkeys(itertools.islice(text.documents(SEED), 2 * DOCUMENTS))
    return [document for document in stream if document not in seen][:DOCUMENTS]


def pretraining_documents() -> set[str]:
    """Every document that the embedded model was pre-trained on."""
    from mosld_bench.embedded import pretrain

    return set(itertools.islice(text.documents(pretrain.SEED), pretrain.STEPS * pretrain.STEP_DOCUMENTS))


def write(folder: Path) -> Path:
    """Write the documents and return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"emb_text-{i:04d}", "text": one} for i, one in enumerate(documents(pretraining_documents()))]
    pq.write_table(pa.Table.from_pylist(rows), folder / FILE)
    return folder / FILE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA_DIR)
    print(write(parser.parse_args().out))
