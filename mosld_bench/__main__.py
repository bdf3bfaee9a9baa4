"""`python -m mosld_bench` is `mosld-bench`."""

from mosld_bench.cli.app import main

main()
