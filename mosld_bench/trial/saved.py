"""What a trial leaves of the model that it trained: a folder as PEFT or transformers write it, to be used anywhere.

An adapter with its configuration, or a whole model; the tokenizer beside it, and a card that says what it is. No path
of this machine is in it, and its bytes are the same for the same trial.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.records.model_card import CardSource, TaskSource, model_card
from mosld_bench.scratch import scratch_folder

if TYPE_CHECKING:
    from torch import nn

    from mosld_bench.records.record import Record
    from mosld_bench.trial.session import Session


def saved_files(
    model: nn.Module, tokenizer: Any, record: Record, session: Session, save: Callable[[Path], None]
) -> dict[str, bytes]:
    """File name -> content of the folder that others load what the trial of ``record`` trained from.

    ``save`` writes what was trained into a folder, as the trial's method does it.
    """
    from mosld_bench.compat.peft import CONFIG
    from mosld_bench.compat.peft_folder import name_base
    from mosld_bench.inputs.model_source import public_name, public_revision

    spec = record.trial.model
    with scratch_folder() as folder:
        save(folder)
        if (folder / CONFIG).is_file():
            name_base(model, folder, public_name(spec, session.model_root), public_revision(spec))
        tokenizer.save_pretrained(str(folder))
        card = model_card(record, _source(model, record, session))
        (folder / "README.md").write_text(card, encoding="utf-8")
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _source(model: Any, record: Record, session: Session) -> CardSource:
    from mosld_bench.inputs.model_source import licence, public_name

    trial, config = record.trial, getattr(model, "active_peft_config", None)
    return CardSource(
        base=public_name(trial.model, session.model_root),
        licence=licence(trial.model, session.model_root),
        peft_type=None if config is None else str(config.peft_type.value),
        registers=config is not None and not type(config).__module__.startswith("peft."),
        tasks={
            task: TaskSource(title=session.tasks.title(task), data_set=session.tasks.hub_data(task))
            for task in dict.fromkeys(trial.train_on + trial.scored_on)
        },
    )
