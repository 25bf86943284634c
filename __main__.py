"""``python -m graphkiln``."""

from graphkiln.cli import main

if __name__ == "__main__":
    main()
