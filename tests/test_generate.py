"""The generated pages are fresh, and say everything."""

from pathlib import Path

import pytest

from taskscope.configure import keys, load, name_in_environment
from taskscope.generate import EXAMPLE, pages, settings

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", pages())
def test_a_generated_page_is_fresh(path: str) -> None:
    assert (ROOT / path).read_text() == pages()[path](), f"{path} is stale; run `make generate`"


def test_every_setting_is_in_its_page_with_its_variable_and_a_default() -> None:
    page = settings()

    for key in keys():
        assert f"`{name_in_environment(key)}` |" in page, key


def test_the_example_of_the_settings_page_is_valid(tmp_path: Path) -> None:
    (tmp_path / "taskscope.yaml").write_text(EXAMPLE)

    found = load(path=tmp_path / "taskscope.yaml", environ={})

    assert found.jobs[0].expect_every == 26 * 3600
