"""The engine: schedule, run, sample, commit. One thread, no I/O; everything around it is in `worker`."""

from __future__ import annotations

import itertools
import secrets
from concurrent.futures import Future

from msgspec import structs
from torch import Tensor

from mezzo.engine import sampler
from mezzo.engine.blocks import BlockPool
from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.drafts import NO_DRAFT, Drafter
from mezzo.engine.grammar import GrammarError, Grammars, GrammarState
from mezzo.engine.images import SequenceImage
from mezzo.engine.messages import AddRequest, EngineStats, ImageInput, SequenceOutput
from mezzo.engine.runner import Runner
from mezzo.engine.scheduler import ScheduledSequence, Scheduler
from mezzo.engine.sequence import FinishReason, Sequence, TokenScore
from mezzo.engine.step_rows import SequenceRows, StepMasks, merged


class EngineCore:
    """Continuous batching over one model.

    Every request that `add` accepts ends in exactly one output with a finish reason per choice.
    """

    def __init__(self, config: EngineConfig, vocabulary: Vocabulary, runner: Runner) -> None:
        cache = runner.cache
        self.runner = runner
        self.scheduler = Scheduler(
            BlockPool(cache.num_blocks, cache.block_size),
            max_num_seqs=config.max_num_seqs,
            max_step_tokens=config.max_step_tokens,
            max_image_tokens=config.image_cache_tokens,
            max_draft_tokens=config.max_draft_tokens,
            caches_prefixes=config.prefix_cache,
        )
        self.max_context_length = min(runner.decoder.config.max_seq_len, cache.num_blocks * cache.block_size)
        self._vocabulary = vocabulary
        self._grammars = Grammars(vocabulary, runner.decoder.config.vocab_size)
        self._compiling: dict[str, tuple[Sequence, Future[GrammarState]]] = {}
        self._requests: dict[str, list[Sequence]] = {}
        self._finished_early: list[SequenceOutput] = []
        self._num_requests = 0
        self._num_arrivals = 0
        self._num_steps = 0
        self._num_prompt_tokens = 0
        self._num_completion_tokens = 0
        self._num_draft_tokens = 0
        self._num_accepted_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        is_compiled = any(grammar.done() for _, grammar in self._compiling.values())
        return self.scheduler.has_work or bool(self._finished_early) or is_compiled

    @property
    def is_compiling(self) -> bool:
        """Whether there will be work without another message: a request waits for its grammar."""
        return bool(self._compiling)

    @property
    def stats(self) -> EngineStats:
        pool, prefix_cache = self.scheduler.pool, self.scheduler.prefix_cache
        return EngineStats(
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting) + len(self._compiling),
            num_blocks=pool.num_blocks,
            num_free_blocks=pool.num_free,
            num_requests=self._num_requests,
            num_steps=self._num_steps,
            num_preemptions=self.scheduler.num_preemptions,
            num_prompt_tokens=self._num_prompt_tokens,
            num_completion_tokens=self._num_completion_tokens,
            num_draft_tokens=self._num_draft_tokens,
            num_accepted_tokens=self._num_accepted_tokens,
            num_image_hits=self.scheduler.image_cache.num_hits,
            num_image_misses=self.scheduler.image_cache.num_misses,
            num_prefix_hits=prefix_cache.num_hits,
            num_prefix_misses=prefix_cache.num_misses,
            num_cached_tokens=prefix_cache.num_cached_tokens,
        )

    def add(self, request: AddRequest) -> None:
        """Queue a request.

        Raises: ValueError for a prompt that is empty or does not leave room for one token; for a prompt or a
        prediction that holds ids outside the vocabulary; for `n` below 1; for an id that is in use; for images that do
        not fit their places; for a `scored_from` without a token before it, or of a request for an answer.
        """
        self._num_requests += 1
        num_prompt = len(request.prompt_token_ids)
        if request.request_id in self._requests:
            raise ValueError(f"request {request.request_id} is already running")
        if not 0 < num_prompt < self.max_context_length:
            raise ValueError(
                f"a prompt of {num_prompt} tokens does not fit {self.max_context_length} positions"
            )
        vocab_size = self.runner.decoder.config.vocab_size
        for name, token_ids in (
            ("token id", request.prompt_token_ids),
            ("predicted token", request.prediction_token_ids),
        ):
            if not all(0 <= token_id < vocab_size for token_id in token_ids):
                raise ValueError(f"a {name} is outside the vocabulary of {vocab_size}")
        if request.n < 1:
            raise ValueError("n must be at least 1")
        if request.scored_from is not None:
            _check_scored(request)
        images = self._place_images(request)
        self._num_prompt_tokens += num_prompt
        if request.params.max_tokens == 0 and request.scored_from is None:
            self._finished_early += [
                _ended(request.request_id, index, "length") for index in range(request.n)
            ]
            return
        room = self.max_context_length - num_prompt
        if request.params.max_tokens is not None:
            room = min(room, request.params.max_tokens)
        seed = request.params.seed if request.params.seed is not None else secrets.randbits(63)
        first = Sequence(
            request_id=request.request_id,
            index=0,
            prompt_token_ids=request.prompt_token_ids,
            params=request.params,
            seed=seed,
            arrival=(self._num_arrivals, 0),
            num_siblings=request.n - 1,
            room=room,
            images=images,
            drafter=self._drafter(request.prompt_token_ids, room, request.prediction_token_ids),
            scored_from=request.scored_from,
            # Of its own, where it shares nothing: it still finds its own blocks again when it was preempted.
            cache_salt=secrets.token_bytes() if request.cache_salt is None else request.cache_salt,
        )
        self._num_arrivals += 1
        self._requests[request.request_id] = [first]
        if request.grammar is None:
            self.scheduler.add(first)
        else:
            compiling = self._grammars.begin(request.grammar, request.begun_with, request.unique_items)
            self._compiling[request.request_id] = first, compiling

    def abort(self, request_id: str) -> list[SequenceOutput]:
        """Take a request out; its blocks are free at once. Returns the end of each choice that had none yet.

        Unknown ids are ignored: a request may end while its abort is under way.
        """
        outputs: list[SequenceOutput] = []
        is_queued = self._compiling.pop(request_id, None) is None
        for sequence in self._requests.pop(request_id, ()):
            if is_queued:
                self.scheduler.remove(sequence)
            for index in range(sequence.index, sequence.index + 1 + sequence.num_siblings):
                outputs.append(_ended(request_id, index, "abort", num_cached=sequence.num_cached))
        return outputs

    def step(self) -> list[SequenceOutput]:
        """Compute one step and return what it added, sequence by sequence."""
        outputs, self._finished_early = self._finished_early, []
        outputs += self._queue_compiled()
        work = self.scheduler.schedule()
        self.runner.forget_images(work.dropped_images)
        self.runner.encode(work.encodings)
        if not work.scheduled:
            return outputs
        masks = self._start_masks(work.scheduled)
        logits, complete, scores = self.runner.forward(work.scheduled)
        if masks is not None:
            allowed = masks.result()
            sampler.forbid(logits, [mask for item in complete for mask in allowed[item.sequence]])
        for item in work.scheduled:
            self.scheduler.advance(item)
        ends = itertools.accumulate(1 + len(item.draft) for item in complete)
        rows = [
            SequenceRows(item.sequence, end - 1 - len(item.draft), item.draft)
            for item, end in zip(complete, ends, strict=True)
        ]
        outputs += self._end_scored(rows, scores)
        rows = [row for row in rows if row.sequence.scored_from is None]
        rows += self._fork_siblings(rows)
        outputs += self._sample(logits, rows)
        self._num_steps += 1
        return outputs

    def _end_scored(
        self, rows: list[SequenceRows], scores: list[tuple[Sequence, int, TokenScore]]
    ) -> list[SequenceOutput]:
        """Note the step's scores, and end the sequences that wanted nothing else and are complete."""
        for sequence, position, score in scores:
            sequence.scores[position] = score
        outputs = []
        for sequence in (row.sequence for row in rows if row.sequence.scored_from is not None):
            self._end(sequence)
            of_tokens = tuple(sequence.scores[position] for position in sorted(sequence.scores))
            ended = _ended(sequence.request_id, 0, "length", num_cached=sequence.num_cached)
            outputs.append(structs.replace(ended, scores=of_tokens))
        return outputs

    def _start_masks(self, scheduled: list[ScheduledSequence]) -> StepMasks | None:
        """Begin to compute what each row of the step may take, where the step has a grammar."""
        complete = [item for item in scheduled if item.completes]
        bound = [item for item in complete if item.sequence.grammar is not None]
        if not bound:
            return None
        states = [(item.sequence.grammar, item.draft.token_ids) for item in bound if item.sequence.grammar]
        num_rows = {item.sequence: 1 + len(item.draft) for item in complete}
        return StepMasks(num_rows, [item.sequence for item in bound], self._grammars.start_masks(states))

    def _sample(self, logits: Tensor, rows: list[SequenceRows]) -> list[SequenceOutput]:
        """Sample and commit the next token of each sequence, then the one after it as long as its draft holds."""
        outputs: dict[Sequence, list[SequenceOutput]] = {row.sequence: [] for row in rows}
        added: dict[Sequence, list[int]] = {row.sequence: [] for row in rows}
        going_on, place = rows, 0
        while going_on:
            at = [row.first + place for row in going_on]
            chosen = logits if at == list(range(len(logits))) else logits[at]
            token_ids = sampler.sample(chosen, [row.sequence for row in going_on])
            holding = []
            for row, token_id in zip(going_on, token_ids, strict=True):
                output = self._commit(row.sequence, token_id)
                outputs[row.sequence].append(output)
                if token_id is None:
                    continue
                added[row.sequence].append(token_id)
                is_accepted = place < len(row.draft) and row.draft.token_ids[place] == token_id
                if is_accepted:
                    row.num_accepted += 1
                    if output.finish_reason is None:
                        row.sequence.num_computed += 1
                        holding.append(row)
            going_on, place = holding, place + 1
        done: list[SequenceOutput] = []
        for row in rows:
            self._learn(row, added[row.sequence])
            done += merged(outputs[row.sequence], row)
        return done

    def _learn(self, row: SequenceRows, token_ids: list[int]) -> None:
        self._num_draft_tokens += len(row.draft)
        self._num_accepted_tokens += row.num_accepted
        if row.sequence.drafter is not None:
            row.sequence.drafter.learn(row.draft, row.num_accepted, token_ids)

    def _drafter(self, prompt: list[int], room: int, prediction: list[int]) -> Drafter | None:
        """Return one where drafts are checked and there is room for one: a draft's last token leads to another."""
        if not self.scheduler.max_draft_tokens or room <= 1:
            return None
        return Drafter(prompt, prediction, row_cost=self.runner.network.row_cost)

    def _queue_compiled(self) -> list[SequenceOutput]:
        """Queue the requests whose grammars are compiled. Returns the ends of those whose grammar is none."""
        outputs = []
        for request_id, (sequence, compiling) in list(self._compiling.items()):
            if not compiling.done():
                continue
            del self._compiling[request_id]
            try:
                sequence.grammar = compiling.result()
            except GrammarError:  # the server compiles before it sends: it and this process disagree
                del self._requests[request_id]
                outputs += [_ended(request_id, index, "error") for index in range(sequence.num_siblings + 1)]
            else:
                self.scheduler.add(sequence)
        return outputs

    def _place_images(self, request: AddRequest) -> tuple[SequenceImage, ...]:
        """Check that each image has exactly its tokens, in order, and that no other token stands for an image."""
        token_ids, position = request.prompt_token_ids, 0
        image_token_id, num_image_tokens = self.runner.image_token_id, 0
        if image_token_id is None:
            if request.images:
                raise ValueError("this model has no vision encoder")
            return ()
        placed = []
        for image in request.images:
            end = image.start + image.num_tokens
            if not position <= image.start <= end <= len(token_ids):
                raise ValueError(f"an image is placed at {image.start} to {end}")
            expected = self.runner.num_embeddings(image.height, image.width)
            found = token_ids[image.start : end].count(image_token_id)
            if found != expected or len(image.pixels) != 3 * image.height * image.width:
                raise ValueError(
                    f"an image of {expected} embeddings is given {found} tokens and {len(image.pixels)} bytes"
                )
            num_image_tokens += found
            position = end
            placed.append(self._placed(image))
        if token_ids.count(image_token_id) != num_image_tokens:
            raise ValueError("an image token without an image")
        return tuple(placed)

    def _placed(self, image: ImageInput) -> SequenceImage:
        num_layers, layer_cost = self.runner.encoding_cost(image.height, image.width)
        return SequenceImage(**structs.asdict(image), num_layers=num_layers, layer_cost=layer_cost)

    def _fork_siblings(self, rows: list[SequenceRows]) -> list[SequenceRows]:
        """Let further choices of a request start from the prompt that was just computed, on the same logits."""
        copies, forked = [], []
        for row in rows:
            sequence = row.sequence
            for index in range(1, sequence.num_siblings + 1):
                sibling = self._sibling(sequence, index)
                if (copy := self.scheduler.fork(sequence, sibling)) is not None:
                    copies.append(copy)
                if sibling.num_computed:
                    forked.append(SequenceRows(sibling, row.first, NO_DRAFT))
            sequence.num_siblings = 0
        self.runner.copy_blocks(copies)
        return forked

    def _commit(self, sequence: Sequence, token_id: int | None) -> SequenceOutput:
        """Add a sampled token to its sequence, and end the sequence if that was the last or there is none."""
        text, marker = "", None
        reason: FinishReason | None = "error"
        if token_id is not None:
            sequence.append(token_id)
            self._num_completion_tokens += 1
            if token_id in self._vocabulary.marker_token_ids:
                marker, text = token_id, sequence.text.flush()
            else:
                text = sequence.text.feed(self._vocabulary.bytes_of(token_id))
            reason = self._finish_reason(sequence, token_id)
        if reason is not None:
            text += sequence.text.flush()
            self._end(sequence)
        return SequenceOutput(
            request_id=sequence.request_id,
            index=sequence.index,
            text=text,
            num_tokens=int(token_id is not None),
            marker=marker,
            num_cached_tokens=sequence.num_cached or 0,
            finish_reason=reason,
        )

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        siblings = self._requests[sequence.request_id]
        siblings.remove(sequence)
        if not siblings:
            del self._requests[sequence.request_id]

    def _finish_reason(self, sequence: Sequence, token_id: int) -> FinishReason | None:
        grammar = sequence.grammar
        if grammar is not None and grammar.is_broken:
            return "error"
        if token_id in self._vocabulary.eos_token_ids or (grammar is not None and grammar.is_complete):
            return "stop"
        if sequence.text.is_stopped:
            return "stop_string"
        if sequence.num_completion == sequence.params.max_tokens:
            return "length"
        if sequence.num_tokens == self.max_context_length:
            return "model_length"
        return None

    def _sibling(self, first: Sequence, index: int) -> Sequence:
        sibling = Sequence(
            request_id=first.request_id,
            index=index,
            prompt_token_ids=first.prompt_token_ids,
            params=first.params,
            seed=first.seed,
            arrival=(first.arrival[0], index),
            room=first.room,
            images=first.images,
            drafter=self._drafter(first.prompt_token_ids, first.room, []),
            cache_salt=first.cache_salt,
        )
        sibling.num_cached = first.num_cached
        sibling.grammar = first.grammar.copy() if first.grammar is not None else None
        self._requests[first.request_id].append(sibling)
        return sibling


def _check_scored(request: AddRequest) -> None:
    if request.n != 1 or request.params.max_tokens != 0:
        raise ValueError("what is scored has no answer: n must be 1 and max_tokens 0")
    if not 1 <= (request.scored_from or 0) < len(request.prompt_token_ids):
        raise ValueError("scored_from must be the position of a token that has one before it")


def _ended(
    request_id: str, index: int, reason: FinishReason, *, num_cached: int | None = None
) -> SequenceOutput:
    return SequenceOutput(
        request_id=request_id,
        index=index,
        text="",
        num_tokens=0,
        num_cached_tokens=num_cached or 0,
        finish_reason=reason,
    )
