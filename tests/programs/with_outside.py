"""taskscope's command line, with the bridges in `outside/` beside its own."""

from pathlib import Path

from taskscope import bridges
from taskscope.cli import main

bridges.__path__.append(str(Path(__file__).parent / "outside"))

if __name__ == "__main__":
    main()
