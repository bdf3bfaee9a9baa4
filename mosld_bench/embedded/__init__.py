"""The embedded default: a tiny pre-trained model and nine small tasks.

With them `mosld-bench run` needs no download.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
