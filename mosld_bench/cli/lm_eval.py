"""`mosld-bench lm-eval`: lm-eval's own command, with the methods of this package known to PEFT."""

from __future__ import annotations

import re
import sys

import typer

from mosld_bench.embedded import MODEL_DIR

#: The word for the model that the package carries, in lm-eval's --model_args.
_EMBEDDED = re.compile(r"((?:^|,)(?:pretrained|tokenizer)=)embedded(?=,|$)")

#: Lets everything through, the option --help too: it is lm-eval's.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def lm_eval(context: typer.Context) -> None:
    """Run lm-eval's command as it is, after `import mosld_bench`, so that it scores adapters of ours with peft=DIR.

    Every option is lm-eval's. pretrained=embedded stands for the model that the package carries.
    """
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm_eval", *(_EMBEDDED.sub(lambda match: f"{match[1]}{MODEL_DIR}", word) for word in context.args)]
    cli_evaluate()
