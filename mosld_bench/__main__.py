"""`python -m mosld_bench` is `mosld-bench`."""

from mosld_bench.cli import main

if __name__ == "__main__":
    main()
