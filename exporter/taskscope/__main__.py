"""`python -m taskscope` is the command `taskscope`."""

from taskscope.cli import main

if __name__ == "__main__":
    main()
