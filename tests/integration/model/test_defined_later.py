"""Metrics that are defined, and changed, whenever Hypothesis likes count what the model counts.

All that test_stateful.py does goes on meanwhile: late events, voids, crashes, segments that are
closed, usage that is rolled up, an aggregator that forgets. A rebuild is killed again and again.
"""

from collections.abc import Sequence

from hypothesis import seed
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from tests.integration.model.conftest import Stage, model_seeds, model_settings
from tests.integration.model.naive import KINDS, Asked
from tests.integration.model.test_stateful import IngestAndAggregator, replicas
from tests.integration.model.world import UNIQUE_BY

# The one dimension that events have, and one that they lack.
DIMENSIONS = [(), (UNIQUE_BY,), ("other",), ("other", UNIQUE_BY)]
kinds = st.sampled_from(KINDS)
# With one seed: building takes far longer than what is built from.
EXAMPLES = 4


class DefinedLater(IngestAndAggregator):
    """Nobody has defined anything in the beginning."""

    @initialize()
    def begin(self) -> None:
        super().begin()
        self.tenant = self.run(self.world.new_tenant(()))

    @rule(kind=kinds)
    def a_metric_is_defined(self, kind: str) -> None:
        self._define(kind)

    def _define(self, kind: str) -> None:
        """Unless it is: it may have been split since."""
        if not self.run(self.world.built(self.tenant, kind)):
            self.run(self.world.define(self.tenant, kind))

    @rule(kind=kinds, dimensions=st.sampled_from(DIMENSIONS))
    def a_metric_is_split(self, kind: str, dimensions: Sequence[str]) -> None:
        """Its figures stay; the split is built while another may be on its way."""
        if self.run(self.world.built(self.tenant, kind)):
            self.run(self.world.split(self.tenant, kind, dimensions))

    @rule(replica=replicas, parts=st.integers(0, 6))
    def metrics_are_built(self, replica: int, parts: int) -> None:
        """Until it is killed."""
        self.run(self.world.build(replica, parts))

    def assert_usage(self, asked: Asked, counted: set[bytes]) -> None:
        """Of a metric that is what its name says."""
        if self.run(self.world.built(self.tenant, asked.metric)):
            super().assert_usage(asked, counted)

    def settle(self) -> None:
        """All is built, too. What is left over of that is deleted."""
        while self.run(self.world.build(0, None)):
            pass
        # First: buckets of what is no longer counted by are never counted anew.
        self.run(self.world.delete_left_over())
        super().settle()
        self.run(self.world.delete_left_over())

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for kind in KINDS:
            self._define(kind)
        super().teardown()
        assert all(self.run(self.world.built(self.tenant, kind)) for kind in KINDS)


def test_metrics_defined_later_are_what_metrics_defined_first_are(stage: Stage) -> None:
    for chosen_seed in model_seeds():

        class Machine(DefinedLater):
            pass

        Machine.stage = stage
        machine = seed(chosen_seed)(Machine)
        run_state_machine_as_test(machine, settings=model_settings(EXAMPLES))
