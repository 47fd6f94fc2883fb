"""What schemathesis finds when it asks what the OpenAPI document allows, and what it forbids."""

import json
from hashlib import sha256

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as examples
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from taskscope.api.endpoint import endpoints
from taskscope.api.openapi import document
from taskscope.settings import Settings, Token

TOKEN = Token(name="t", sha256=sha256(b"secret").hexdigest(), scopes=("metrics", "monitoring", "ingest"))

open_to_all = schemathesis.openapi.from_dict(document(endpoints(), Settings()))
guarded = schemathesis.openapi.from_dict(
    document(endpoints(), Settings(tokens=(TOKEN,))),
    config=SchemathesisConfig.from_dict(
        {"phases": {"coverage": {"enabled": False}}}
    ),  # the other document has it
)


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """Text goes as it is; other things, which the document forbids, as what they are."""
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


@pytest.fixture
def guarded_client(serve):
    return serve(Settings(history=None, tokens=(TOKEN,)))


def bounded(test):
    return examples(
        max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )(test)


def of_two_paths(case):
    """The path ends as the name of a job may end, too, which has methods of its own."""
    both = [allow_header_conformance, unsupported_method]
    return both if case.operation.path.endswith("{name}/backfill") else []


@open_to_all.parametrize()
@bounded
def test_every_answer_is_what_the_document_says(case, historian):
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{historian.port}",
        timeout=20,
        # A document cannot say that `from` comes before `to`, nor which cursors there are.
        excluded_checks=[positive_data_acceptance, *of_two_paths(case)],
    )


@guarded.parametrize()
@bounded
def test_with_tokens_and_without_history_too(case, guarded_client):
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{guarded_client.port}",
        headers={"Authorization": "Bearer secret"},
        timeout=20,
        # The first takes the header away, which this test puts back.
        excluded_checks=[negative_data_rejection, positive_data_acceptance, *of_two_paths(case)],
    )
