from metrics_scene import NOW, Scene

from taskscope.events import Fact, Job, Jobs, QueueState, SchedulerState, Trigger, TriggerState, WorkerState


def job_with(name: str, *states: TriggerState) -> Job:
    """A job whose triggers are in these states."""
    return Job(
        name=name,
        key=name,
        triggers=tuple(Trigger(key=f"{at}", state=state) for at, state in enumerate(states)),
    )


def test_a_scheduler_is_up_and_running(scene: Scene) -> None:
    scene.live.fold([SchedulerState(scheduler="main", system="fake", at=NOW, up=True, running=False)])
    scene.sync()

    assert scene.value("scheduler_up", scheduler="main") == 1
    assert scene.value("scheduler_running", scheduler="main") == 0
    assert scene.value("reading_timestamp_seconds", scheduler="main", reading="scheduler") == NOW


def test_a_reading_past_its_time_to_live_is_gone_and_its_age_is_known(scene: Scene) -> None:
    scene.live.fold([SchedulerState(scheduler="main", system="fake", at=NOW, up=True, running=True)])
    scene.live.fold([Jobs(scheduler="main", at=NOW, jobs=(job_with("a", "WAITING"),))])
    scene.live.fold([QueueState(scheduler="main", queue="q", at=NOW, ready=3)])
    scene.live.fold([WorkerState(scheduler="main", worker="w", at=NOW, active=1)])
    scene.sync()

    scene.sync(NOW + scene.settings.reading_ttl + 1)

    gone = (
        "scheduler_up",
        "scheduler_running",
        "triggers",
        "queue_messages",
        "worker_up",
        "workers",
        "worker_active_runs",
    )
    assert not {f"taskscope_{name}" for name in gone} & scene.names()
    assert scene.value("reading_timestamp_seconds", scheduler="main", reading="queue") == NOW
    assert scene.value("reading_timestamp_seconds", scheduler="main", reading="jobs") == NOW
    assert "taskscope_job_last_run_timestamp_seconds" in scene.names(job_name="a")


def test_five_trigger_states_are_exported_always_and_others_when_there_are_any(scene: Scene) -> None:
    jobs = (job_with("a", "WAITING", "EXECUTING"), job_with("b", "WAITING", "COMPLETE"))
    scene.live.fold([Jobs(scheduler="main", at=NOW, jobs=jobs), Jobs(scheduler="idle", at=NOW, jobs=())])
    scene.sync()

    found = {
        labels: sample.value
        for (name, labels), sample in scene.samples().items()
        if name == "taskscope_triggers"
    }
    main = {
        dict(labels)["state"]: value for labels, value in found.items() if dict(labels)["scheduler"] == "main"
    }
    idle = {
        dict(labels)["state"]: value for labels, value in found.items() if dict(labels)["scheduler"] == "idle"
    }
    assert main == {"WAITING": 2, "EXECUTING": 1, "PAUSED": 0, "BLOCKED": 0, "ERROR": 0, "COMPLETE": 1}
    assert idle == {"WAITING": 0, "EXECUTING": 0, "PAUSED": 0, "BLOCKED": 0, "ERROR": 0}


def test_triggers_of_changed_and_removed_jobs_are_counted_anew(scene: Scene) -> None:
    scene.live.fold(
        [Jobs(scheduler="main", at=NOW, jobs=(job_with("a", "WAITING", "WAITING"), job_with("b", "PAUSED")))]
    )
    scene.sync()

    scene.live.fold([Jobs(scheduler="main", at=NOW + 1, jobs=(job_with("a", "BLOCKED"),))])
    scene.sync(NOW + 1)

    counts = {
        state: scene.value("triggers", scheduler="main", state=state)
        for state in ("WAITING", "PAUSED", "BLOCKED")
    }
    assert counts == {"WAITING": 0, "PAUSED": 0, "BLOCKED": 1}


def test_triggers_of_jobs_that_share_a_name_are_all_counted(scene: Scene) -> None:
    jobs = (job_with("a", "WAITING"), job_with("a", "PAUSED"))
    scene.live.fold([Jobs(scheduler="main", at=NOW, jobs=jobs)])
    scene.sync()

    assert scene.value("triggers", scheduler="main", state="WAITING") == 1
    assert scene.value("triggers", scheduler="main", state="PAUSED") == 1


def test_a_queue_tells_what_it_knows_and_nothing_else(scene: Scene) -> None:
    scene.live.fold([QueueState(scheduler="main", queue="q", at=NOW, ready=3, oldest=NOW - 5, consumers=0)])
    scene.sync()

    assert scene.value("queue_messages", scheduler="main", queue="q", state="ready") == 3
    assert scene.value("queue_messages", scheduler="main", queue="q", state="in_flight") is None
    assert scene.value("queue_oldest_message_timestamp_seconds", scheduler="main", queue="q") == NOW - 5
    assert scene.value("queue_consumers", scheduler="main", queue="q") == 0


def test_what_is_kept_beside_a_queue_and_what_nobody_saw_is_exported_where_it_is_known(scene: Scene) -> None:
    state = SchedulerState(scheduler="main", system="fake", at=NOW, up=True, running=True)
    scene.live.fold([state, QueueState(scheduler="main", queue="q", at=NOW, deferred=2, failed=4)])
    scene.sync()
    assert scene.value("queue_messages", scheduler="main", queue="q", state="deferred") == 2
    assert scene.value("queue_messages", scheduler="main", queue="q", state="failed") == 4
    assert scene.value("runs_unseen_total", scheduler="main") is None

    scene.live.fold(
        [SchedulerState(scheduler="main", system="fake", at=NOW, up=True, running=True, unseen=7)]
    )
    scene.sync()
    assert scene.value("runs_unseen_total", scheduler="main") == 7


def test_workers_are_counted_by_state_and_shown_one_by_one(scene: Scene) -> None:
    up = WorkerState(
        scheduler="main", worker="w1", at=NOW, active=2, memory_bytes=2**20, threads=4, cpu_seconds=1.5
    )
    scene.live.fold([up, WorkerState(scheduler="main", worker="w2", at=NOW, up=False)])
    scene.sync()

    assert scene.value("workers", scheduler="main", state="up") == 1
    assert scene.value("workers", scheduler="main", state="down") == 1
    assert scene.value("worker_up", scheduler="main", worker="w2") == 0
    assert scene.value("worker_active_runs", scheduler="main", worker="w1") == 2
    assert scene.value("worker_resident_memory_bytes", scheduler="main", worker="w1") == 2**20
    assert scene.value("worker_cpu_seconds_total", scheduler="main", worker="w1") == 1.5
    assert scene.value("worker_active_runs", scheduler="main", worker="w2") is None


def test_what_triggers_did_begins_at_0_with_the_scheduler(scene: Scene) -> None:
    scene.live.fold([SchedulerState(scheduler="main", system="fake", at=NOW, up=True, running=True)])
    scene.sync()
    assert scene.value("trigger_events_total", scheduler="main", event="fired") is None

    scene.metrics.restore({})
    scene.sync()

    assert scene.value("trigger_events_total", scheduler="main", event="fired") == 0


def test_queued_runs_are_exported_of_queues_that_are_read_where_anybody_tells_them(scene: Scene) -> None:
    def waits(scheduler: str, queue: str) -> Fact:
        return Fact(scheduler=scheduler, native=queue, status="queued", at=NOW, job="a", queue=queue)

    read = [QueueState(scheduler=name, queue="mail", at=NOW, ready=3) for name in ("main", "mute")]
    scene.live.fold([waits("main", "mail"), waits("main", "unread"), *read])
    scene.sync()
    assert scene.value("runs_queued", scheduler="main", queue="mail") == 1
    assert scene.value("runs_queued", scheduler="main", queue="unread") is None
    assert scene.value("runs_queued", scheduler="mute", queue="mail") is None

    scene.live.fold([Fact(scheduler="main", native="mail", status="started", at=NOW, job="a")])
    scene.sync()
    assert scene.value("runs_queued", scheduler="main", queue="mail") == 0
