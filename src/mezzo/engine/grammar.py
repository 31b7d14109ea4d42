"""Answers that must follow a grammar: compiled once, and in each step a mask of the tokens that may come next.

A grammar is llguidance's text (docs/decisions/0018-grammars.md). It knows bytes, not models: a token may be taken if
its bytes continue a text of the grammar, and the end tokens may where the text is whole. Control tokens are what the
grammar calls `<[id]>`, and may be taken nowhere else.

Grammars come from requests, so nothing here is done in the step's own time that could take long: they are compiled on
a thread, once mezzo.engine.grammar_checker has found that they can be, and masks are computed while the model computes
the logits that they will be laid over. What a grammar may cost is bounded by `LIMITS`; one that passes them ends its
sequence with `error`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from mezzo.engine.config import Vocabulary
from mezzo.engine.grammar_errors import DOES_NOT_FIT
from mezzo.engine.grammar_errors import GrammarError as GrammarError  # noqa: PLC0414  what is done here may raise it
from mezzo.engine.unique_items import UniqueItems

# Within these limits the most expensive grammar that benchmarks/grammars.py knows compiles in less than a second of one
# core. They do not bound all that the library does: see mezzo.engine.grammar_checker.
LIMITS = LLParserLimits(
    initial_lexer_fuel=50_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=25_000,  # 1 to 2 kB each
    max_grammar_size=100_000,
    verbose_errors=False,  # the long ones show the parser's insides
)
_KEPT = 32  # compiled grammars
_ENDS = frozenset(b',"]}')  # bytes, one of which every token has that ends an item of an array
_PLACE = re.compile(r"^at \d+\(\d+\): ")  # of an error, in a text that whoever wrote the schema never saw
# Where only one text can follow, any split of it into tokens may: which is usual is the model's to know.
_PREAMBLE = '%llguidance {"no_forcing": true}\n'


def check_grammar(grammar: str, begun_with: bytes = b"") -> None:
    """Compile a grammar for no vocabulary in particular, and see whether a text may begin with `begun_with`.

    A hostile grammar may keep it busy for ever: see mezzo.engine.grammar_checker. Raises: GrammarError.
    """
    matcher = _compiled(_byte_tokenizer(), grammar)
    if begun_with and matcher.try_consume_tokens(list(begun_with)) < len(begun_with):
        raise GrammarError(DOES_NOT_FIT)


class Grammars:
    """All grammars of an engine: compiles them on a thread, and keeps the latest."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        """vocab_size: rows of the model's head, which may be more than the tokenizer has tokens."""
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="grammar")
        self._compiled: OrderedDict[bytes, Future[LLMatcher]] = OrderedDict()

    def begin(
        self, grammar: str, begun_with: bytes = b"", unique_items: str | None = None
    ) -> Future[GrammarState]:
        """Compile `grammar`, or find it compiled; the result is the state after `begun_with`.

        unique_items: the JSON Schema whose `uniqueItems` are watched beside it, None where there are none.
        The future's error is a GrammarError where the grammar is none.
        """
        key = hashlib.sha256(grammar.encode()).digest()
        compiled = self._compiled.pop(key, None) or self._threads.submit(self._compile, grammar)
        self._compiled[key] = compiled
        while len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        begun: Future[GrammarState] = Future()
        compiled.add_done_callback(
            lambda done: _settle(begun, lambda: self._state(done.result(), begun_with, unique_items))
        )
        return begun

    def start_masks(
        self, states: Sequence[tuple[GrammarState, Sequence[int]]]
    ) -> Future[list[list[NDArray[np.bool_]]]]:
        """Compute on a thread which tokens may come next: for each state, now and after each token of its draft.

        Arrays are (vocab_size,).
        """
        return self._threads.submit(
            lambda: [state.masks(self._vocab_size, token_ids) for state, token_ids in states]
        )

    @cached_property
    def _table(self) -> _TokenTable:
        return _TokenTable(self._vocabulary, self._vocab_size)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return _tokenizer(list(self._vocabulary.token_bytes), sorted(self._vocabulary.eos_token_ids))

    def _compile(self, grammar: str) -> LLMatcher:
        matcher = _compiled(self._tokenizer, grammar)
        matcher.compute_bitmask()  # the first look at a state is the long one, and its result is kept
        return matcher

    def _state(self, compiled: LLMatcher, begun_with: bytes, unique_items: str | None) -> GrammarState:
        items = None if unique_items is None else UniqueItems(json.loads(unique_items))
        state = GrammarState(compiled.deep_copy(), self._table, items)
        if begun_with:
            state.take(self._tokenizer.tokenize_bytes(begun_with))
        return state


class GrammarState:
    """How far one sequence has come in its grammar."""

    def __init__(
        self, matcher: LLMatcher, table: _TokenTable, unique_items: UniqueItems | None = None
    ) -> None:
        self._matcher = matcher
        self._table = table
        self._unique_items = unique_items

    @property
    def is_broken(self) -> bool:
        """Whether the grammar became too complex on the way; nothing may come next then."""
        return bool(self._matcher.is_error())

    @property
    def is_complete(self) -> bool:
        """Whether the text is whole and cannot go on."""
        return bool(self._matcher.is_stopped()) and not self.is_broken

    def copy(self) -> GrammarState:
        """Return the same state for a sibling."""
        return GrammarState(self._matcher.deep_copy(), self._table, self._unique_items)

    def num_valid(self, token_ids: Sequence[int]) -> int:
        """Return how many of these tokens, from the first on, may come next one after the other."""
        num_valid = int(self._matcher.validate_tokens(list(token_ids)))
        if self._unique_items is None:
            return num_valid
        items = self._unique_items
        for number, token_id in enumerate(token_ids[:num_valid]):
            if (after := self._items_after(items, token_id)) is None:
                return number
            items = after
        return num_valid

    def masks(self, vocab_size: int, token_ids: Sequence[int]) -> list[NDArray[np.bool_]]:
        """Return what `mask` does, now and after each of these tokens, which must be valid."""
        masks = [self.mask(vocab_size)]
        if token_ids:
            ahead = self.copy()
            for token_id in token_ids:
                ahead.take([token_id])
                masks.append(ahead.mask(vocab_size))
        return masks

    def take(self, token_ids: list[int]) -> None:
        """Go on by tokens that the mask allowed."""
        self._matcher.consume_tokens(token_ids)
        for token_id in token_ids:
            if self._unique_items is not None:
                # What the mask did not allow is what a prefix began with: the server has seen that it fits.
                self._unique_items = self._items_after(self._unique_items, token_id) or self._unique_items

    def mask(self, vocab_size: int) -> NDArray[np.bool_]:
        """Return (vocab_size,): which tokens may come next. None may once the state is broken."""
        allowed = np.zeros(vocab_size, np.bool_)
        bits = b"" if self.is_broken else self._matcher.compute_bitmask()
        if not self.is_broken:  # it may break by the look at what comes next
            known = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[:vocab_size]
            allowed[: len(known)] = known
            if self._unique_items is not None and self._unique_items.is_watching:
                self._forbid_again(allowed)
        return allowed

    def _forbid_again(self, allowed: NDArray[np.bool_]) -> None:
        """Take back the tokens that would end an item which its array has already, or leave it no other way on."""
        items = self._unique_items
        assert items is not None
        # Any token may be the wrong way to an item of a list. Of others, one that ends an item, and one that leads to
        # where an earlier one ended.
        suspects = {*np.flatnonzero(allowed if items.is_choosing else allowed & self._table.ends)}
        for data in items.traps:
            suspects.update(token_id for token_id in self._table.ids_of(data) if allowed[token_id])
        for token_id in suspects:
            after = self._items_after(items, int(token_id))
            allowed[token_id] = after is not None and (
                not after.is_trapped or self._can_go_on(int(token_id), after, len(allowed))
            )

    def _can_go_on(self, token_id: int, after: UniqueItems, vocab_size: int) -> bool:
        matcher = self._matcher.deep_copy()
        matcher.consume_tokens([token_id])
        return bool(GrammarState(matcher, self._table, after).mask(vocab_size).any())

    def _items_after(self, items: UniqueItems, token_id: int) -> UniqueItems | None:
        data = self._table[token_id]
        return items.after(data) if data else items.after_control_token()


class _TokenTable:
    """The tokens of a head of `vocab_size` rows, by their bytes."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size

    def __getitem__(self, token_id: int) -> bytes:
        return self._vocabulary.bytes_of(token_id)

    @cached_property
    def ends(self) -> NDArray[np.bool_]:
        """(vocab_size,): which tokens have a byte that ends an item of an array."""
        return np.array([not _ENDS.isdisjoint(self[token_id]) for token_id in range(self._vocab_size)])

    def ids_of(self, data: bytes) -> Sequence[int]:
        """Return the tokens of these bytes."""
        return self._ids.get(data, ())

    @cached_property
    def _ids(self) -> dict[bytes, list[int]]:
        ids: dict[bytes, list[int]] = {}
        for token_id, data in enumerate(self._vocabulary.token_bytes):
            if data:
                ids.setdefault(data, []).append(token_id)
        return ids


class _Tokens:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], eos_token_id: int) -> None:
        self.eos_token_id = eos_token_id
        self.special_token_ids = [token_id for token_id, token in enumerate(tokens) if not token]
        self.tokens = [token or f"<|{token_id}|>".encode() for token_id, token in enumerate(tokens)]
        self._id_of = {token: token_id for token_id, token in reversed(list(enumerate(tokens))) if token}
        self._longest = max(map(len, self._id_of))

    def __call__(self, text: bytes) -> list[int]:
        """Split into the longest tokens, from left to right."""
        token_ids, start = [], 0
        while start < len(text):
            for end in range(min(len(text), start + self._longest), start, -1):
                if (token_id := self._id_of.get(text[start:end])) is not None:
                    token_ids.append(token_id)
                    start = end
                    break
            else:
                raise ValueError("a byte without a token")
        return token_ids


def _tokenizer(tokens: list[bytes], eos_token_ids: list[int]) -> LLTokenizer:
    wrapper = TokenizerWrapper(_Tokens(tokens, eos_token_ids[0]))
    return LLTokenizer(wrapper, n_vocab=len(tokens), eos_token=eos_token_ids)


@cache
def _byte_tokenizer() -> LLTokenizer:
    return _tokenizer([bytes([byte]) for byte in range(256)] + [b""], [256])


def _compiled(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    matcher = LLMatcher(tokenizer, _PREAMBLE + grammar, log_level=0, limits=LIMITS)
    if matcher.is_error():
        raise GrammarError(_PLACE.sub("", matcher.get_error().splitlines()[0]))
    return matcher


def _settle(future: Future[GrammarState], compute: Callable[[], GrammarState]) -> None:
    try:
        future.set_result(compute())
    except Exception as error:
        future.set_exception(error)
