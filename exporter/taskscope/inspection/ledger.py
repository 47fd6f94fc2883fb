"""What becomes of findings when something is found again, or not any more. Pure."""

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from taskscope.inspection.scene import Found
from taskscope.sinks.history.finding_records import Finding

Subject = tuple[str, str, str, str]
"""(kind, scheduler, job, key)"""


def subject_of(one: Found | Finding) -> Subject:
    """What it is about, whenever it is found."""
    return one.kind, one.scheduler, one.job, one.key


def settled(
    inspection: str, look: str, known: Iterable[Finding], found: Iterable[Found], begin: int, end: int
) -> Iterator[Finding]:
    """The findings of one look that are new or have changed, after the window from `begin` to `end` (ms).

    What was found again goes on; what was not found in a full window has recovered at the end of that window.
    """
    open_ones = {subject_of(one): one for one in known if not one.recovered and one.look == look}
    for one in {subject_of(one): one for one in found}.values():
        yield _seen(inspection, look, open_ones.pop(subject_of(one), None), one, end)
    for gone in open_ones.values():
        if gone.last_seen <= begin:
            yield replace(gone, recovered=end)


def _seen(inspection: str, look: str, before: Finding | None, one: Found, end: int) -> Finding:
    return Finding(
        inspection=inspection,
        look=look,
        kind=one.kind,
        scheduler=one.scheduler,
        job=one.job,
        object=one.object,
        key=one.key,
        level=one.level,
        title=one.title,
        overview=one.overview,
        started=before.started if before else one.at,
        last_seen=max(end, before.last_seen if before else 0),
        details=one.details,
        distribution=one.distribution,
        attributes=one.attributes,
    )
