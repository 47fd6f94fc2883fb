"""Real errors of every Python, Java and shell that was at hand: what is the same is one group, what is not is not."""

import json
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from taskscope.groups import Grouping
from taskscope.settings import Settings

CORPUS = Path(__file__).parent / "corpus" / "errors.jsonl"
TOLD = [json.loads(line) for line in CORPUS.read_text().splitlines()]
GROUPING = Grouping(Settings())
SAME_PLACE = {"in_thread_pool": "missing_key", "no_file_after_retries": "no_file"}
"""Another way to the same function, which raises the same: by definition one error."""


def family(error):
    return error["by"].split()[0]


def fingerprint(error):
    """All are errors of one job: nothing but themselves tells them apart."""
    return GROUPING.of(("main", "job"), error["kind"], error["message"], error["stack"]).fingerprint


def figures(errors):
    """Of all pairs of errors: how many belong together, and are split; how many do not, and are merged."""
    names = (SAME_PLACE.get(error["name"], error["name"]) for error in errors)
    seen = Counter(zip(names, map(fingerprint, errors), strict=True))
    same = different = split = merged = 0
    wrong = defaultdict(set)
    for (one, count), (other, others) in combinations(seen.items(), 2):
        if one[0] == other[0]:
            same += count * others
            split += count * others
            wrong["split"].add(one[0])
        else:
            different += count * others
            merged += count * others * (one[1] == other[1])
            if one[1] == other[1]:
                wrong["merged"].add(tuple(sorted((one[0], other[0]))))
    same += sum(count * (count - 1) // 2 for count in seen.values())
    return same, split, different, merged, dict(wrong)


@pytest.mark.parametrize("who", ["Python", "Java", "shell"])
def test_what_is_one_error_is_one_group_and_what_is_not_is_not(who, capsys):
    same, split, different, merged, wrong = figures([error for error in TOLD if family(error) == who])

    with capsys.disabled():
        print(f"\n{who}: {split} of {same} pairs split, {merged} of {different} pairs merged {wrong or ''}")
    assert same > 10
    assert different > 100
    assert (split, merged) == (0, 0)
