"""Posting to a taskscope: what is taken, what is later, what is never."""

import socket
import ssl
import subprocess
from contextlib import closing

import pytest

from services.ingesting import NONSENSE, receiving, saying
from taskscope.errors import BadArgument, Misdirected, Refused, Unavailable
from taskscope.sinks.forward.address import Address


@pytest.mark.parametrize(
    "url",
    [
        "collector:9750",
        "ftp://collector",
        "http://",
        "unix://",
        "",
        "http://collector:many",
        "http://collector:99999",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused_with_a_sentence(url):
    with pytest.raises(BadArgument, match="no address of a taskscope; give http://HOST:PORT"):
        Address(url)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(BadArgument, match="forward_token") as caught:
        Address("http://user:hunter2@collector:9750")

    assert "hunter2" not in str(caught.value)


def test_what_is_taken_is_answered(tmp_path):
    with receiving() as receiver:
        address = Address(receiver.url, token="secret")
        assert b'"accepted": 1' in address.post("/x", b'[{"n": 1}]')
        assert b'"accepted": 2' in address.post("/x", b'[{"n": 2}, {"n": 3}]')
        address.close()

    assert receiver.numbers == [1, 2, 3]
    assert {headers["Authorization"] for headers in receiver.asked} == {"Bearer secret"}


def test_it_keeps_its_connection_and_makes_it_anew_where_it_was_closed():
    with receiving() as receiver:
        address = Address(receiver.url)
        address.post("/x", b"[]")
        first = address._connection.sock.getsockname()
        address.post("/x", b"[]")
        assert address._connection.sock.getsockname() == first
        port = int(receiver.url.rpartition(":")[2])
    with receiving(port=port, receiver=receiver):
        address.post("/x", b'[{"n": 1}]')
        address.close()

    assert receiver.numbers == [1]


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 429, 502, 503, 504])
def test_what_may_be_taken_later_is_unavailable(status):
    with receiving() as receiver:
        receiver.answer = lambda _: (status, {"error": "not now"})
        with (
            closing(Address(receiver.url)) as address,
            pytest.raises(Unavailable, match=rf"takes nothing now: {status} .*not now"),
        ):
            address.post("/x", b"[]")


@pytest.mark.parametrize("status", [400, 413, 415, 422, 500])
def test_what_will_never_be_taken_is_refused(status):
    with receiving() as receiver:
        receiver.answer = lambda _: (status, {"error": "no event"})
        with (
            closing(Address(receiver.url)) as address,
            pytest.raises(Refused, match=rf"refuses it: {status} .*no event"),
        ):
            address.post("/x", b"[]")


def test_nobody_there_is_unavailable():
    with pytest.raises(Unavailable, match="does not answer"):
        Address("http://127.0.0.1:1").post("/x", b"[]")
    with pytest.raises(Unavailable, match="does not answer"):
        Address("http://no..such..name").post("/x", b"[]")


def test_one_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable, match=r"does not answer.*timed out"):
            Address(f"http://127.0.0.1:{port}", timeout=0.2).post("/x", b"[]")


@pytest.mark.parametrize("said", NONSENSE)
def test_one_that_speaks_something_else_or_not_to_its_end_is_unavailable(said):
    with saying(said) as url, pytest.raises(Unavailable, match="does not answer"):
        Address(url, timeout=5).post("/x", b"[]")


def test_a_socket_file_is_posted_to_without_a_port(tmp_path):
    with receiving(file=tmp_path / "x.sock") as receiver:
        address = Address(receiver.url)
        address.post("/x", b'[{"n": 1}]')
        address.close()

    assert address.local
    assert receiver.numbers == [1]


def test_a_path_that_is_too_long_for_a_socket_file_is_unavailable(tmp_path):
    with pytest.raises(Unavailable, match="AF_UNIX path too long"):
        Address(f"unix://{tmp_path}/{'x' * 120}.sock").post("/x", b"[]")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(pem)],
        check=True,
        capture_output=True,
    )
    return pem, key


def test_over_tls_it_is_the_one_whom_the_certificate_names(certificate):
    pem, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    with receiving(tls=context) as receiver:
        url = receiver.url.replace("http://127.0.0.1", "https://localhost")
        trusting = Address(url, certificates=str(pem))
        trusting.post("/x", b'[{"n": 1}]')
        trusting.close()
        with pytest.raises(Misdirected, match=r"CERTIFICATE_VERIFY_FAILED.*; give .*forward_certificates"):
            Address(url).post("/x", b"[]")

    assert receiver.numbers == [1]


def test_tls_where_none_is_spoken_is_for_somebody_to_correct():
    with receiving() as receiver, pytest.raises(Misdirected, match=r"over TLS .*; give http://"):
        Address(receiver.url.replace("http:", "https:")).post("/x", b"[]")


def test_a_connection_that_breaks_under_tls_is_away():
    with saying(b"") as url, pytest.raises(Unavailable, match="does not answer") as caught:
        Address(url.replace("http:", "https:")).post("/x", b"[]")

    assert not isinstance(caught.value, Misdirected)


def test_certificates_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "empty.pem").write_text("")
    for file in ("none.pem", "empty.pem"):
        with pytest.raises(
            Misdirected, match=rf"^forward_certificates='{tmp_path}/{file}' cannot be used \("
        ):
            Address("https://localhost", certificates=f"{tmp_path}/{file}").post("/x", b"[]")
