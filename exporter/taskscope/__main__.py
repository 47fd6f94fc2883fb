"""`python -m taskscope`, and the command `taskscope`."""

import sys


def main() -> None:
    """Run the command that the arguments name. `exec` must start soon, without what the others need."""
    if sys.argv[1:2] == ["exec"]:
        from taskscope.exec.command import main as run

        run(sys.argv[2:])
    from taskscope.cli import main as others

    others()


if __name__ == "__main__":
    main()
