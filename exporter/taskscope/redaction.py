"""Takes secrets out of what is told: by the names of their keys, and by the shapes that credentials have in text.

What has no name (a bare positional argument) cannot be known for a secret. In doubt too much is hidden.
"""

import re
from collections.abc import Iterable
from typing import Any

from taskscope.values import masked

HIDDEN = "***"

_MARK = r"\n… \d+ characters cut …\n"  # what `failure.cut` leaves: the value goes on behind it
_QUOTED = re.compile(
    rf"""(?:b|r|u|f|br|rb)?(\\*(?:\"\"\"|'''|["']))(?:(?!(?<!\\)\1)(?:[^\n]|{_MARK}))*(?:(?<!\\)\1)?""",
    re.IGNORECASE,
)
"""It ends at a quote behind as many backslashes as the first: others belong to the text, however often quoted."""
_OPENING = re.compile(r"[\w.]*[\[({<]")
_INSIDE = re.compile(rf"{_QUOTED.pattern}|[\[({{<]|[\])}}>]|\n")
_BARE = re.compile(
    r"""(?:(?:bearer|basic|digest|token)[ \t]+)?[^\s,;&)}\]'"<]+(?:;[ \t]*[^\s=;,'"]+=[^\s;,'"]+)*""",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer)(\s+|%20)[\w.~+/=-]+", re.IGNORECASE)
_USER = re.compile(r"(https?://)[^\s/@:'\"]{1,512}@", re.IGNORECASE)  # a token in place of a name
_SHAPES = {
    "AKIA": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "ASIA": "",
    "gh": r"\bgh[opsru]_\w{20,}",
    "github_pat_": r"\bgithub_pat_\w{20,}",
    "glpat-": r"\bgl(?:pat|dt|cbt|rt|ptt)-[\w-]{16,}",
    **dict.fromkeys(("gldt-", "glcbt-", "glrt-", "glptt-"), ""),
    "xox": r"\bxox[abeoprs]-[\w-]{10,}",
    "hooks.": r"(?<=hooks\.slack\.com/)[\w/-]{20,}",
    "/webhooks/": r"(?<=/webhooks/)\d{10,}/[\w-]{20,}",
    "/IncomingWebhook/": r"(?<=/IncomingWebhook/)[\w/-]{20,}",
    "k_live_": r"\b[prs]k_live_\w{12,}",
    "k_test_": r"\b[prs]k_test_\w{12,}",
    "whsec_": r"\bwhsec_\w{12,}",
    "AIza": r"\bAIza[\w-]{30,}",
    "ya29.": r"\bya29\.[\w-]{12,}",
    "GOCSPX-": r"\bGOCSPX-[\w-]{12,}",
    "eyJ": r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",
    "PRIVATE KEY": r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|\Z)",
    "npm_": r"\bnpm_[A-Za-z0-9]{20,}",
    "pypi-": r"\bpypi-[\w-]{30,}",
    "SG.": r"\bSG\.[\w-]{16,}\.[\w-]{16,}",
    "sk-": r"\bsk-[\w-]{20,}",
    "hf_": r"\bhf_[A-Za-z0-9]{20,}",
    "dop_v1_": r"\bdop_v1_[0-9a-f]{32,}",
    "shp": r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{24,}",
    "SK": r"\bSK[0-9a-f]{32}\b",
    "hvs.": r"\bhv[bs]\.[\w-]{20,}",
    "hvb.": "",
    "glsa_": r"\bglsa_\w{20,}",
    "glc_": r"\bglc_[\w+/=]{20,}",
    "dapi": r"\bdapi[0-9a-f]{32}\b",
    "key-": r"\bkey-[0-9a-f]{32}\b",
    ":AA": r"(?<!\d)\d{6,12}:AA[\w-]{30,}",  # in a path behind `bot`
    "AccountKey=": r"(?<=AccountKey=)[\w+/=]{12,}",
    "AccessKey=": r"(?<=AccessKey=)[\w+/=]{12,}",
    "sig=": r"(?<=[?&]sig=)[\w%+/=-]{12,}",
    "ignature=": r"(?<=Signature=)[\w%+/=-]{12,}",
    "Basic ": r"(?<=\bBasic )(?=[\w+/]*(?:\d|=))[\w+/]{8,}={0,2}",
}
"""What credentials of well-known kinds look like, wherever they stand, by a text that each of them holds."""
_SHAPE = re.compile("|".join(filter(None, _SHAPES.values())), re.DOTALL)
_FAR = 8_192  # characters within which a bracket is closed, or not at all


class Redaction:
    """Hides the values of keys that contain one of these words, case-insensitive, with `_`, `-` or nothing between.

    A word that begins with `_` must be the last of the key: `_pass` is in `SMTP_PASS` and `pass`, not in `bypass`.
    """

    def __init__(self, words: Iterable[str]) -> None:
        words = [word.lower().replace("-", "_") for word in words if word]
        within, last = [w for w in words if w[0] != "_"], [w[1:] for w in words if w[0] == "_"]
        self._within, self._last = tuple(map(_folded, within)), tuple(last)
        self._hints = (*self._within, *map(_folded, last))
        self._told = _told(within, last)

    def sounds_secret(self, name: object) -> bool:
        """Is this the name of something that must not be shown?"""
        text = str(name)
        folded = _folded(text)
        return any(word in folded for word in self._within) or _ends(text, self._last)

    def text(self, text: str) -> str:
        """The text without the credentials in it."""
        if "://" in text:
            text = _USER.sub(rf"\g<1>{HIDDEN}@", masked(text))
        folded = _folded(text)
        if any(hint in folded for hint in self._hints):
            text = self._without_values(text)
        if any(hint in text for hint in _SHAPES):
            text = _SHAPE.sub(HIDDEN, text)
        return _BEARER.sub(rf"\g<1>\g<2>{HIDDEN}", text) if "earer" in text or "EARER" in text else text

    def value(self, value: Any) -> Any:
        """Plain data without the secrets in its texts and under its keys."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(key) if isinstance(key, str) else key: self._of_key(key, item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            before = [None, *value]  # ["--password", "…"] and ("Authorization", "…") are told in pairs
            return [
                self._of_key(name, item) if self._is_key(name) else self.value(item)
                for name, item in zip(before, value, strict=False)
            ]
        return value

    def _of_key(self, key: object, value: Any) -> Any:
        if value is None or isinstance(value, bool) or not self.sounds_secret(key):
            return self.value(value)
        return HIDDEN

    def _is_key(self, value: object) -> bool:
        """Is it a text that can only be a name? `auth` alone can be anything."""
        if not isinstance(value, str) or len(value) > 64 or not _NAME.fullmatch(value):
            return False
        return not value.isalpha() or value.lower() not in self._last

    def _without_values(self, text: str) -> str:
        parts: list[str] = []
        position = 0
        while found := self._told.search(text, position):
            end, hidden = _hidden(text, found.end())
            parts += (text[position : found.end()], hidden)
            position = max(end, found.end())
        return "".join((*parts, text[position:]))


_NAME = re.compile(r"""["']?[\w-]+["']?""")


def _hidden(text: str, start: int) -> tuple[int, str]:
    """Where the value that begins here ends, and what stands in its place."""
    if quoted := _QUOTED.match(text, start):
        return quoted.end(), f"{quoted[1]}{HIDDEN}{quoted[1]}"
    if _OPENING.match(text, start):
        return _closing(text, start), HIDDEN
    bare = _BARE.match(text, start)
    return (bare.end(), HIDDEN) if bare else (start, "")


def _closing(text: str, start: int) -> int:
    """The end of the bracket that opens here; of the line, where it is never closed."""
    depth, line = 0, 0
    for found in _INSIDE.finditer(text, start, start + _FAR):
        if found[0] == "\n":
            line = line or found.start()
        elif found[0] in "[({<":
            depth += 1
        elif found[0] in "])}>":
            depth -= 1
            if depth == 0:
                return found.end()
    return line or len(text)


def _told(within: list[str], last: list[str]) -> re.Pattern[str]:
    """A key and what leads from it to its value."""
    key = rf"(?:{_any(within)})(?![\w.]{{0,64}}(?:error|exception|warning)\b)[\w.-]{{0,64}}"
    final = rf"(?<![^\W_])(?:{_any(last)})(?![\w.-])"
    compound = rf"(?<![^\W_])(?:{_any([word for word in last if '_' in word])})(?![\w.-])"
    leads = r"""(?=(?:\\*["'])?\]?[ \t]{0,8}=|\\*["']\]?[ \t]{0,8}:)"""  # not in prose: `first pass: 3`
    alone = rf"""(?<=_){final}|(?<=-){final}(?=\\*["'])|{final}{leads}"""
    return re.compile(
        rf"""(?:{key}|{compound}|{alone})"""
        r"""(?:(?:\\*["'])?\]?[ \t]{0,8}[:=][=>]?[ \t]{0,8}"""  # key: value, x['key'] = value
        r"""|>"""  # <key>value</key>
        r"""|\\*["'],[ \t]{0,8}(?=b?\\*["']))"""  # ('key', 'value')
        rf"""|(?<![\w-])--?\b[\w-]{{0,32}}(?:{key}|{final})[ \t]{{1,8}}(?=[^\s-])""",  # --key value
        re.IGNORECASE,
    )


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word).replace("_", "[_-]?") for word in words) or r"(?!)"


def _ends(name: str, words: Iterable[str]) -> bool:
    """Is one of these the last word of the name?"""
    parted = "_" + name.strip("\"'").lower().replace("-", "_")
    return any(parted.endswith((f"_{word}", f"_{word.replace('_', '')}")) for word in words)


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
