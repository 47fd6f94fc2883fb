"""What jobs ran for (shops, tenants, databases) and failed for the last time that they did."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from taskscope.identity import anchor_ms, text
from taskscope.inspection.scene import DAY, Found, Scene
from taskscope.sinks.history.entities import Subject
from taskscope.sinks.history.records import Run

_KIND = "failing_entity"
_PAST = 7 * 86_400.0  # seconds that are looked back, unless `look_back` says otherwise
_LATE = DAY  # runs that began so long before the window may have ended in it
_MOST = 20  # entities that are reported of a job: those that are open, and those that failed last
_STACK = 2_000  # characters of a stack that a finding shows
_MESSAGE = 200  # of a message


def look(scene: Scene) -> Iterator[Found]:
    """Each job and entity of which the last run that ended failed or was lost."""
    lately = scene.queries.failing_entities(max(0, scene.begin - _LATE), scene.end)
    meant = [subject for subject in lately if scene.meant(subject[0])]
    failing, reported = Counter(key for key, _ in meant), Counter[tuple[str, str]]()
    for subject in dict.fromkeys([*_open(scene), *meant]):
        key = subject[0]
        if reported[key] < _MOST:
            for found in _found(scene, subject, failing[key]):
                reported[key] += 1
                yield found


def _open(scene: Scene) -> Iterator[Subject]:
    """Those that were reported and may not have run since: their last run failed all the same."""
    for one in scene.known:
        if one.kind == _KIND and not one.recovered and scene.meant((one.scheduler, one.job)):
            yield (one.scheduler, one.job), one.key


def _found(scene: Scene, subject: Subject, failing: int) -> Iterator[Found]:
    known = scene.open(_KIND, *subject)
    since = min(scene.past(_PAST), known.started if known else scene.end)
    success, bad = scene.queries.entity_failures(subject, since, scene.shown, scene.end)
    failures = [id for id in bad if id > success]
    last = scene.queries.run(failures[0]) if failures else None
    if last is not None:  # else it succeeded since then, or retention has removed what failed
        yield _report(scene, subject, bad, failures, last, failing)


def _report(
    scene: Scene, subject: Subject, bad: Sequence[bytes], failures: Sequence[bytes], last: Run, failing: int
) -> Found:
    (scheduler, job), entity = subject
    return Found(
        kind=_KIND,
        scheduler=scheduler,
        job=job,
        object=entity,
        key=entity,
        level="critical",
        title=f"{entity} of job {job} fails",
        overview=" ".join(_overview(failures, last, failing)),
        at=anchor_ms(failures[-1]),
        details=_details(scene, failures, last),
        distribution=_distribution(scene, bad),
        attributes={"entity": entity, "exception": last.exception},
    )


def _overview(failures: Sequence[bytes], last: Run, failing: int) -> Iterator[str]:
    since = datetime.fromtimestamp(anchor_ms(failures[-1]) / 1000, UTC)
    runs = "Its last run" if len(failures) == 1 else f"Its last {len(failures)} runs"
    yield f"{runs} failed, since {since:%Y-%m-%d %H:%M} UTC."
    why = ": ".join(filter(None, (last.exception or last.reason, last.message[:_MESSAGE])))
    if why:
        yield f"The latest: {why.rstrip('.')}."
    if failing > _MOST:
        yield f"Of {failing} that this job fails for, {_MOST} are reported."


def _details(scene: Scene, failures: Sequence[bytes], last: Run) -> dict[str, object]:
    errors = [one.error.hex() for one in scene.queries.errors_of(last.id) if one.fatal]
    return {
        "failures": len(failures),
        "last_run": anchor_ms(last.id),
        "run": text(last.id),
        "stack": last.stack[-_STACK:],
        **({"error": f"/api/error/{errors[-1]}"} if errors else {}),
    }


def _distribution(scene: Scene, bad: Sequence[bytes]) -> tuple[tuple[int, float], ...]:
    step = scene.step
    failed = Counter(anchor_ms(id) // step * step for id in bad)
    return tuple((at, float(failed[at])) for at in range(scene.shown // step * step, scene.end, step))
