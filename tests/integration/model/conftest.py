"""The world that the tests of the model play in; synchronous, as Hypothesis' machines are."""

import asyncio
import os
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from cli.embedded import EmbeddedPostgres
from tests.conftest import migrated_database
from tests.integration.model.world import PACKAGES, World

# How long each test goes on looking, in seconds: MODEL_SECONDS=3600 for a long run.
SECONDS = float(os.environ.get("MODEL_SECONDS", "15"))
# One of the seeds that a run has printed: that one alone.
SEED = os.environ.get("MODEL_SEED", "")


def model_settings(examples: int) -> settings:
    """For so many examples, which can be repeated by their seed."""
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        database=None,
        print_blob=True,
        # What went wrong is told once more, not explained: a run of it takes half a second.
        phases=[Phase.explicit, Phase.generate, Phase.target, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


# Not st.randoms(): how often it is asked may depend on what happened to be stored by when.
orders = st.integers(0, 2**32 - 1).map(random.Random)


def model_seeds() -> Iterator[int]:
    """A new one after another, until SECONDS are over; printed, and shown with a failure."""
    until_s = time.monotonic() + SECONDS
    while True:
        chosen = int(SEED or secrets.randbelow(2**32))
        print(f"MODEL_SEED={chosen}")
        yield chosen
        if SEED or time.monotonic() > until_s:
            return


@dataclass
class Stage:
    """The world and the loop that it lives in."""

    runner: asyncio.Runner
    world: World


@pytest.fixture
def stage(postgres: EmbeddedPostgres) -> Iterator[Stage]:
    """A world with empty databases."""
    with asyncio.Runner() as runner:
        databases = AsyncExitStack()

        async def start() -> World:
            urls = [
                await databases.enter_async_context(migrated_database(postgres, package))
                for package in PACKAGES
            ]
            world = World(*urls)
            await world.start()
            return world

        world = runner.run(start())
        try:
            yield Stage(runner, world)
        finally:
            runner.run(world.stop())
            runner.run(databases.aclose())
