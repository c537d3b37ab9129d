"""Passwords as PostgreSQL stores them."""

import base64
import hmac

from cli.databases import database_url, scram_verifier

# The example of RFC 7677, section 3.
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
AUTH_MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
SERVER_SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_verifier_agrees_with_the_example_of_the_rfc() -> None:
    """Its server key signs the example's messages as the RFC says."""
    verifier = scram_verifier("pencil", SALT)
    server_key = base64.b64decode(verifier.rpartition(":")[2])
    signature = hmac.digest(server_key, AUTH_MESSAGE, "sha256")
    assert base64.b64encode(signature).decode() == SERVER_SIGNATURE


def test_a_verifier_does_not_show_the_password() -> None:
    """That is why statements carry it and not the password."""
    assert "pencil" not in scram_verifier("pencil", SALT)


def test_a_database_url_keeps_the_servers_host_and_options() -> None:
    """Only user, password and database are the service's own."""
    admin = "postgresql://admin:pw@db.example.com:6432/postgres?sslmode=require"
    assert database_url(admin, "usageflow_ingest", "secret") == (
        "postgresql://usageflow_ingest:secret@db.example.com:6432/usageflow_ingest?sslmode=require"
    )
