"""Our PEFT tuners. Importing one registers it with PEFT."""

# Importing PEFT imports all of our tuners (see compat/peft.py): so it comes now, before any of them is half read.
import peft as _  # noqa: F401
