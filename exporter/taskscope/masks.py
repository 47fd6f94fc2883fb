"""What stays of a message when everything is taken out that differs from one time to the next."""

import re

_LONGEST = 1_024
"""Characters of a line that are looked at."""
_TELLING = re.compile(
    r"error|fail|fatal|cannot|can't|could not|unable|denied|refused|not found|no such|timed? ?out|killed|invalid"
    r"|missing|exception|panic|abort|unknown|unexpected|too (?:many|large|long)",
    re.IGNORECASE,
)
_MASKS = [
    (re.compile(pattern, re.IGNORECASE), mask)
    for pattern, mask in (
        (r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", "<url>"),
        (r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b", "<email>"),
        (r"(?<!\w)(['\"`])(?:(?!\1)[^\\\n]|\\.)*\1(?!\w)", "<text>"),
        (r"[\u2018\u201c\u00ab][^\u2019\u201d\u00bb\n]*[\u2019\u201d\u00bb]", "<text>"),
        (r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", "<id>"),
        (r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.])", "<address>"),
        (
            r"\b(?:\d{4}-\d\d-\d\d|\d\d?/(?:\d\d?|[a-z]{3})/\d{4})"
            r"(?:[T :,]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?)?(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?\b",
            "<time>",
        ),
        (
            r"\b(?:(?:mon|tue|wed|thu|fri|sat|sun),? )?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\w* +\d\d?"
            r"(?:,? \d{4})?(?: \d\d:\d\d(?::\d\d)?)?\b",
            "<time>",
        ),
        (r"\b\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?\b", "<time>"),
        (r"(?<![\w.:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", "<address>"),
        (r"\b[\w-]+(?:\.[\w-]+)*:\d{2,5}\b(?!:)", "<address>"),
        (r"(?<![\w.])(?:~|\.{1,2}|[a-z]:)?(?:[/\\][\w.@%+=,~-]+)+[/\\]?", "<path>"),
        (r"\b0x[0-9a-f]+\b", "<id>"),
        (r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", "<id>"),
        (r"(?<![a-z])[+-]?\d+(?:[.,_]\d+)*(?:e[+-]?\d+)?%?", "<n>"),
        (r"(?<=[a-z])\d+", "<n>"),
    )
]


def masked(message: str) -> str:
    """The telling line of the message, with numbers, ids, texts in quotes, paths, addresses and times masked."""
    line = _telling(message)[:_LONGEST]
    for pattern, mask in _MASKS:
        line = pattern.sub(mask, line)
    return " ".join(line.split())


def _telling(message: str) -> str:
    """The last line that speaks of an error, else the last one: what a program writes before is mostly progress."""
    lines = [line for line in message.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if _TELLING.search(line)), lines[-1] if lines else "")
