"""What stays of a message when everything is taken out that differs from one time to the next."""

import re

_LONGEST = 1_024
"""Characters of a line that are looked at."""
_TELLING = re.compile(
    r"error|fail|fatal|cannot|can't|could not|unable|denied|refused|not found|no such|timed? ?out|killed|invalid"
    r"|missing|exception|panic|abort|unknown|unexpected|too (?:many|large|long)",
    re.IGNORECASE,
)
_PIECES = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
"""The words and numbers of a name."""


def _jumble(found: re.Match[str]) -> str:
    """An id in place of what changes between cases and digits more often than any name: ids by base 64 and 62."""
    text, pieces = found[0], _PIECES.findall(found[0])
    if text.endswith("=") and len(text) % 4 == 0 and len(pieces) > 2:
        return "<id>"
    mixed = any(map(str.isdigit, pieces)) and any(map(str.isalpha, pieces))
    return "<id>" if mixed and len(text) >= 16 and len(text) < 2.5 * len(pieces) else text


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
        (r"(?<![\w.])(?:~|\.{1,2}|[a-z]:)?(?:[/\\][\w.@%+=,~-]+)+[/\\]?", "<path>"),
        (r"(?<![\w./\\-])\.?[\w-][\w.-]*(?:[/\\][\w.@%+=,~-]+)*[/\\][\w.@%+=,~-]*\.[a-z]\w{0,7}\b", "<path>"),
        (r"\b[\w-]+(?:\.[\w-]+)*:\d{2,5}\b(?!:)", "<address>"),
        (r"\b0x[0-9a-f]+\b", "<id>"),
        (r"\b(?=\d*[a-f])[0-9a-f]{8,}\b", "<n>"),  # by chance such an id is made of digits alone
        (r"\b[0-7][0-9a-hjkmnp-tv-z]{25}\b", "<id>"),  # a ULID
        (r"(?<![\w+/=])[\w+/]{6,}(?:={1,2}(?![\w=]))?", _jumble),
        (r"(?:(?<![a-z\d])[+-])?\d+(?:[.,_]\d+)*(?:e[+-]?\d+)?%?", "<n>"),
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
