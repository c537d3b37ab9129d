"""What a change of a definition does: at once, or by building the metric anew.

Inside the caller's transaction, which has locked the definitions and then the metric.
"""

from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.domain import Metric, NewMetric, check_new_metric
from services.aggregator.metric_repository import define_metric, get_metric
from services.aggregator.rebuilds import repository
from services.aggregator.rebuilds.domain import (
    RUNNING,
    MetricChange,
    check_change,
    needs_rebuild,
    same_counting,
)


async def with_rebuild(connection: AsyncConnection, metric: Metric) -> Metric:
    """The metric with its last rebuild."""
    [found] = await repository.with_rebuilds(connection, [metric])
    return found


async def change_definition(
    connection: AsyncConnection,
    metric: Metric,
    change: MetricChange,
    dimension_values_max: int,
    now: datetime,
) -> Metric:
    """Change what the metric (with its rebuild) is, or is about to be.

    InvalidArgumentError, ConflictError.
    """
    target = _target(metric)
    new = change.of(target or metric.definition)
    check_new_metric(new)
    if not metric.defined and target is None:
        return await define_later(connection, metric, new, dimension_values_max, now)
    if not same_counting(target or metric.definition, new):
        await repository.cancel_rebuild(connection, metric.metric_id, now)
        if needs_rebuild(metric, new):
            await _begin(connection, metric, new, dimension_values_max, now)
    await repository.rename(connection, metric.metric_id, new.name, new.unit)
    return await _again(connection, metric)


async def define_later(
    connection: AsyncConnection,
    metric: Metric,
    new: NewMetric,
    dimension_values_max: int,
    now: datetime,
) -> Metric:
    """Define a metric that has defined itself. ConflictError."""
    if needs_rebuild(metric, new):
        await repository.cancel_rebuild(connection, metric.metric_id, now)
        await _begin(connection, metric, new, dimension_values_max, now)
        return await _again(connection, metric)
    await _check(connection, metric, new)
    await repository.cancel_rebuild(connection, metric.metric_id, now)
    return await define_metric(connection, metric.metric_id, new, dimension_values_max)


def is_built_as(metric: Metric, new: NewMetric) -> bool:
    """Whether the metric is being built as `new` already."""
    target = _target(metric)
    return (
        target is not None
        and (target.name, target.unit) == (new.name, new.unit)
        and same_counting(target, new)
    )


def _target(metric: Metric) -> NewMetric | None:
    """What the metric is being changed to."""
    rebuild = metric.rebuild
    return rebuild.new if rebuild is not None and rebuild.state == RUNNING else None


async def _check(connection: AsyncConnection, metric: Metric, new: NewMetric) -> None:
    limited = await repository.has_quotas(connection, metric.metric_id)
    check_change(metric, new, has_quotas=limited)


async def _begin(
    connection: AsyncConnection,
    metric: Metric,
    new: NewMetric,
    dimension_values_max: int,
    now: datetime,
) -> None:
    await _check(connection, metric, new)
    # In the order that it has: of the same dimensions none is moved.
    old = [name for name in metric.definition.dimensions if name in new.dimensions]
    added = [name for name in new.dimensions if name not in old]
    new = replace(new, dimensions=(*old, *added))
    await repository.begin_rebuild(connection, metric.metric_id, new, dimension_values_max, now)


async def _again(connection: AsyncConnection, metric: Metric) -> Metric:
    found = await get_metric(connection, metric.tenant, metric.definition.key)
    assert found is not None, "metrics are never deleted"
    return await with_rebuild(connection, found)
