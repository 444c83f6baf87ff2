"""`python -m magbench`."""

from magbench.cli import main

if __name__ == "__main__":
    main()
