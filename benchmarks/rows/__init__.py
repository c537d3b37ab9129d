"""The rows of the results, by name: each takes its figures and those of its floor."""

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.figures import Row
from benchmarks.rows import (
    billing,
    counting,
    duplicates,
    endurance,
    growth,
    overload,
    questions,
    replicas,
    single,
    webhooks,
)

ROWS: dict[str, Callable[[Bench, str], list[Row]]] = {
    "idle_memory_mb": single.idle_memory,
    "generator_http": single.http_generator,
    "generator_grpc": single.grpc_generator,
    "http_single_64": single.http_single,
    "http_single_256": single.http_single,
    "http_single_256_half_load": single.half_load,
    "http_single_256_at_4500": single.half_wanted,
    "visible_half_load": single.visible_half_load,
    "visible_at_4500": single.visible_half_wanted,
    "http_batch_100": single.stored,
    "http_ndjson": single.stored,
    "grpc_batch_500": single.stored,
    "grpc_stream_500": single.stored,
    "copy_ceiling": single.copy_ceiling,
    "peak_memory": single.peak_memory,
    "grpc_batch_500_sustained": endurance.sustained,
    "duplicates_all": duplicates.duplicates_all,
    "overload_3x": overload.overload,
    "two_replicas": replicas.two_replicas,
    "grpc_batch_500_at_20m": growth.stored_before,
    "soak": endurance.soak,
    "soak_grpc_batch_500": endurance.soak_grpc,
    **webhooks.ROWS,
    "usage_50m": questions.usage,
    "check_quota": questions.check_quota,
    "billing": billing.billing,
    "fold": counting.fold_alone,
    "fold_one_customer": counting.one_customer,
}
# What a quick run leaves out unless it is named.
LONG = frozenset(
    {
        "grpc_batch_500_sustained",
        "duplicates_all",
        "overload_3x",
        "two_replicas",
        "grpc_batch_500_at_20m",
        "soak",
        "soak_grpc_batch_500",
        *webhooks.ROWS,
        "usage_50m",
        "check_quota",
        "billing",
        "fold",
        "fold_one_customer",
    }
)
