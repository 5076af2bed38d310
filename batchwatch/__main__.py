"""``python -m batchwatch``."""

from batchwatch.cli import main

if __name__ == "__main__":
    main()
