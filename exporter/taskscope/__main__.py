"""`python -m taskscope`, and the command `taskscope`."""

import signal
import sys


def main() -> None:
    """Run the command that the arguments name. `exec` must start soon, without what the others need."""
    if sys.argv[1:2] == ["exec"]:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it would the bare command
        from taskscope.exec.command import main as run

        run(sys.argv[2:])
    from taskscope.cli import main as others

    others()


if __name__ == "__main__":
    main()
