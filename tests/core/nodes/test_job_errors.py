"""What a job gets in place of an answer: the shapes of the former hub."""

import json

import pytest

from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.job_errors import (
    NodeFailure,
    all_failed,
    bad_job,
    in_old_shape,
    no_nodes,
)

ID = "5f0c0c3e-6d6f-4d3b-9a39-1f2b3c4d5e6f"


def test_a_bad_job_gets_400_with_a_sentence() -> None:
    reply = bad_job("'model' is missing", 400)

    assert reply.status == 400
    assert json.loads(reply.body) == {"detail": "'model' is missing"}


def test_without_nodes_the_answer_is_that_of_the_former_hub() -> None:
    reply = no_nodes()

    assert reply.status == 503
    assert reply.body == b'{"detail":"No healthy nodes available for requested model"}'


def test_a_reason_stands_beside_it() -> None:
    assert json.loads(no_nodes("a machine starts").body) == {
        "detail": "No healthy nodes available for requested model",
        "error": "a machine starts",
    }


def test_if_all_failed_the_answer_lists_what_each_node_said() -> None:
    failures = [NodeFailure("a", "out of memory", 500), NodeFailure("b", "no", None)]

    reply = all_failed(failures, ID)

    assert reply.status == 503
    assert json.loads(reply.body) == {
        "detail": {
            "message": "All candidate nodes failed to execute the job",
            "errors": [
                {"node_id": "a", "message": "out of memory", "status": 500},
                {"node_id": "b", "message": "no", "status": None},
            ],
            "job_id": ID,
        }
    }


@pytest.mark.parametrize("body", [b'{"error":"it broke"}', b"it broke"])
def test_another_refusal_has_its_words_in_both_places(body: bytes) -> None:
    reply = in_old_shape(
        Reply(429, body, (("Retry-After", "7"), ("Content-Type", "x")))
    )

    assert reply.status == 429
    assert json.loads(reply.body) == {"detail": "it broke", "error": "it broke"}
    assert ("Retry-After", "7") in reply.headers
    assert ("Content-Type", "x") not in reply.headers


def test_a_model_that_no_node_has_is_one_without_nodes() -> None:
    assert in_old_shape(Reply(404, b'{"error":"model not found"}')) == no_nodes()
