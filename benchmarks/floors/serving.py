"""A floor's server lives until its stdin ends: with the benchmark, however that ends."""

import asyncio
import sys
from typing import TypeVar

import msgspec

from benchmarks.messages import Listening

Config = TypeVar("Config")


def read_config(kind: type[Config]) -> Config:
    """The first line of stdin."""
    return msgspec.json.decode(sys.stdin.buffer.readline(), type=kind)


async def serve_until_stdin_ends(port: int) -> None:
    """Tell the port on stdout; return when stdin ends."""
    sys.stdout.buffer.write(msgspec.json.encode(Listening(port)) + b"\n")
    sys.stdout.buffer.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
