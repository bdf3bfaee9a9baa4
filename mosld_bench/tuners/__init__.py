"""Our PEFT tuners. Importing one registers it with PEFT."""

from __future__ import annotations

from typing import Any


def register(name: str, config_class: Any, model_class: Any) -> None:
    """Make PEFT know a tuner, as ``peft_type`` in capitals. To be called once, by the tuner's package."""
    from aenum import extend_enum
    from peft.utils import register_peft_method
    from peft.utils.peft_types import PeftType

    # PEFT refuses names that its enum lacks, so the name comes first.
    if name.upper() not in PeftType.__members__:
        extend_enum(PeftType, name.upper(), name.upper())
    register_peft_method(name=name, config_cls=config_class, model_cls=model_class, prefix=model_class.prefix)


# Importing PEFT imports all of our tuners (see _peft.py), which need the above: so it comes now, before any of them.
import peft as _  # noqa: E402, F401
