"""Keys: their form, what of them is shown, and the one that belongs to this machine."""

from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mezzo.kit.secrets import (
    MachineKeyError,
    hash_secret,
    is_same_secret,
    machine_key,
    mask,
    new_api_key,
)


def test_a_new_key_has_its_prefix_and_256_random_bits() -> None:
    keys = {new_api_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(re.fullmatch(r"mz-[A-Za-z0-9_-]{43}", key) for key in keys)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("mz-0123456789abcdefghijWXYZ", "mz-…WXYZ"),
        ("0123456789abcdefghijWXYZ", "…WXYZ"),
        ("mz-short", "mz-…"),
        ("swordfish", "…"),
        ("", "…"),
    ],
)
def test_a_masked_key_shows_its_prefix_and_its_end_if_it_is_long(key: str, shown: str) -> None:
    assert mask(key) == shown


def test_secrets_compare_by_content_also_beyond_ascii() -> None:
    assert is_same_secret("clé", "clé")
    assert not is_same_secret("clé", "cle")
    assert not is_same_secret("a", "ab")


def test_a_hash_is_sha256() -> None:
    # The example of FIPS 180-2 for the message "abc".
    assert hash_secret("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class TestMachineKey:
    def test_is_made_once_and_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        path = tmp_path / "home" / "api-key"
        key = machine_key(path)
        assert key.startswith("mz-")
        assert machine_key(path) == key
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_is_one_key_for_all_who_start_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "api-key"
        with ThreadPoolExecutor(16) as pool:
            keys = set(pool.map(lambda _: machine_key(path), range(64)))
        assert len(keys) == 1

    @pytest.mark.parametrize("content", ["", "\n", "two words", "clé"])
    def test_refuses_a_file_that_holds_no_key(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "api-key"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(MachineKeyError, match="delete it"):
            machine_key(path)
        assert path.read_text(encoding="utf-8") == content
