"""What a command is called that was given no name."""

from __future__ import annotations

import re

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_WORD = re.compile(r"[A-Za-z][\w-]*")
_SUFFIX = re.compile(r"\.(?:sh|bash|py|pl|rb|php|js|jar|phar|exe)$")
_PREFIXES = (
    "env",
    "nice",
    "ionice",
    "nohup",
    "setsid",
    "exec",
    "time",
    "timeout",
    "flock",
    "chronic",
    "sudo",
    "doas",
)
_INTERPRETER = re.compile(r"(?:.*/)?(?:python|perl|ruby|php|node|java|Rscript|uv|poetry|pipenv)[\d.]*$")
_SHELL = re.compile(r"(?:.*/)?(?:ba|da|z|k)?sh$")
_VALUED = {
    "nice": "n",
    "ionice": "cnp",
    "timeout": "ks",
    "sudo": "ugh",
    "doas": "u",
    "flock": "wE",
    "env": "uC",
}
"""Letters of options that take a value, of programs that run another."""
_TAKES = ("timeout", "flock")
"""Programs with an argument of their own before the command."""


def name_of(command: list[str]) -> str:
    """`pg_dump` of `/usr/bin/pg_dump -Fc shop`, `manage-clearsessions` of `python3 manage.py clearsessions`."""
    words = _bare(list(command))
    if words and _SHELL.match(words[0]):
        return _of_shell(words[1:])
    if words and _INTERPRETER.match(words[0]):
        words = _script(words[1:]) or words
    return _joined(words) or "command"


def name_of_line(line: str) -> str:
    """The same of a line for the shell; of several commands the first that is not a mere preparation."""
    for part in re.split(r"&&|\|\||[;|\n]", line):
        words = [word.strip("'\"(){}") for word in part.split()]
        words = [word for word in _bare(words) if word]
        if words and words[0] not in (
            "cd",
            ".",
            "source",
            "export",
            "set",
            "umask",
            "sleep",
            "test",
            "[",
            "if",
        ):
            return name_of(words)
    return "command"


def _of_shell(words: list[str]) -> str:
    while words and words[0].startswith("-") and not re.fullmatch(r"-\w*c", words[0]):
        words = words[1:]
    if words and words[0].startswith("-"):
        return name_of_line(words[1]) if len(words) > 1 else "command"
    return _joined(words) or "command"


def _bare(words: list[str]) -> list[str]:
    """Without what stands before the command proper: assignments, `nice -n 5`, `sudo -u x` …"""
    while words:
        program = words[0].rpartition("/")[2]
        if _ASSIGNMENT.match(words[0]):
            words = words[1:]
        elif program in _PREFIXES and len(words) > 1:
            words = _without_options(words[1:], _VALUED.get(program, ""))
            words = words[1:] if program in _TAKES and len(words) > 1 else words
        else:
            break
    return words


def _without_options(words: list[str], valued: str) -> list[str]:
    while words and words[0].startswith("-") and words[0] != "-":
        words = words[2 if len(words[0]) == 2 and words[0][1] in valued else 1 :]
    return words


def _script(words: list[str]) -> list[str]:
    """What an interpreter runs: `pkg.tool` of `-m pkg.tool`, else its first argument."""
    for number, word in enumerate(words):
        if word in ("-m", "-jar", "run") or word.startswith("-"):
            continue
        return words[number:]
    return []


def _joined(words: list[str]) -> str:
    """The program and the plain words that follow it, two at most."""
    if not words:
        return ""
    names = [_SUFFIX.sub("", words[0].rstrip("/").rpartition("/")[2])]
    for word in words[1:3]:
        if not _WORD.fullmatch(word):
            break
        names.append(word)
    return re.sub(r"[^\w.:-]+", "-", "-".join(names)).strip("-")[:100]
