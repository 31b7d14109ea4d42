"""The forms of ids, and what makes them unique."""

from __future__ import annotations

import re
import time
import uuid

from mezzo.kit.ids import new_correlation_id, new_request_id, new_tool_call_id, uuid7


def test_request_ids_are_32_lowercase_hex_digits_and_differ() -> None:
    ids = {new_request_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"[0-9a-f]{32}", id_) for id_ in ids)


def test_tool_call_ids_are_nine_letters_and_digits_and_differ() -> None:
    ids = {new_tool_call_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"[a-zA-Z0-9]{9}", id_) for id_ in ids)


def test_a_correlation_id_is_a_version_7_uuid_of_now() -> None:
    before_ms = time.time_ns() // 1_000_000
    id_ = uuid.UUID(new_correlation_id())
    assert (id_.version, id_.variant) == (7, uuid.RFC_4122)
    assert before_ms <= id_.int >> 80 <= time.time_ns() // 1_000_000


def test_the_time_and_the_fixed_bits_stand_where_the_rfc_puts_them() -> None:
    # The example of RFC 9562, appendix A.6: 2022-02-22 19:22:22 UTC is 017F22E2-79B0-7….
    text = str(uuid7(0x017F22E279B0))
    assert text.startswith("017f22e2-79b0-7")
    assert text[19] in "89ab"


def test_uuids_of_later_milliseconds_sort_later() -> None:
    ids = [str(uuid7(time_ms)) for time_ms in range(1000, 1050)]
    assert ids == sorted(ids)
    assert len({str(uuid7(5)) for _ in range(200)}) == 200
