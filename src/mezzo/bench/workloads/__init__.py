"""The workloads, by name."""

from __future__ import annotations

from mezzo.bench.workloads.arrivals import Arrivals
from mezzo.bench.workloads.chats import Chats
from mezzo.bench.workloads.interruption import Interruption
from mezzo.bench.workloads.prediction import Prediction
from mezzo.bench.workloads.prefill import Prefill
from mezzo.bench.workloads.streams import Streams

AnyWorkload = Streams | Prefill | Chats | Interruption | Prediction | Arrivals

# Those that need nothing told; `arrivals` needs a rate.
WORKLOADS = (Streams, Prefill, Chats, Interruption, Prediction)
