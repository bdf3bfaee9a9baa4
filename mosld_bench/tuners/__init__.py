"""Our PEFT tuners. Importing one registers it with PEFT."""
