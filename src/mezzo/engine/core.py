"""The engine: schedule, run, sample, commit. One thread, no I/O; everything around it is in `worker`."""

from __future__ import annotations

import secrets

from msgspec import structs

from mezzo.engine import sampler
from mezzo.engine.blocks import BlockPool
from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.images import SequenceImage
from mezzo.engine.messages import AddRequest, EngineStats, ImageInput, SequenceOutput
from mezzo.engine.runner import Runner
from mezzo.engine.scheduler import Scheduler
from mezzo.engine.sequence import FinishReason, Sequence


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
        )
        self.max_context_length = min(runner.decoder.config.max_seq_len, cache.num_blocks * cache.block_size)
        self._vocabulary = vocabulary
        self._requests: dict[str, list[Sequence]] = {}
        self._finished_early: list[SequenceOutput] = []
        self._num_requests = 0
        self._num_arrivals = 0
        self._num_steps = 0
        self._num_prompt_tokens = 0
        self._num_completion_tokens = 0

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or bool(self._finished_early)

    @property
    def stats(self) -> EngineStats:
        pool = self.scheduler.pool
        return EngineStats(
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting),
            num_blocks=pool.num_blocks,
            num_free_blocks=pool.num_free,
            num_requests=self._num_requests,
            num_steps=self._num_steps,
            num_preemptions=self.scheduler.num_preemptions,
            num_prompt_tokens=self._num_prompt_tokens,
            num_completion_tokens=self._num_completion_tokens,
            num_image_hits=self.scheduler.image_cache.num_hits,
            num_image_misses=self.scheduler.image_cache.num_misses,
        )

    def add(self, request: AddRequest) -> None:
        """Queue a request.

        Raises: ValueError for a prompt that is empty, does not leave room for one token, or holds ids outside
        the vocabulary; for `n` below 1; for an id that is in use; for images that do not fit their places.
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
        if not all(0 <= token_id < vocab_size for token_id in request.prompt_token_ids):
            raise ValueError(f"a token id is outside the vocabulary of {vocab_size}")
        if request.n < 1:
            raise ValueError("n must be at least 1")
        images = self._place_images(request)
        if request.params.max_tokens == 0:
            self._finished_early += [
                _ended(request.request_id, index, "length") for index in range(request.n)
            ]
            return
        seed = request.params.seed if request.params.seed is not None else secrets.randbits(63)
        first = Sequence(
            request_id=request.request_id,
            index=0,
            prompt_token_ids=request.prompt_token_ids,
            params=request.params,
            seed=seed,
            arrival=(self._num_arrivals, 0),
            num_siblings=request.n - 1,
            images=images,
        )
        self._num_arrivals += 1
        self._num_prompt_tokens += num_prompt
        self._requests[request.request_id] = [first]
        self.scheduler.add(first)

    def abort(self, request_id: str) -> list[SequenceOutput]:
        """Take a request out; its blocks are free at once. Returns the end of each choice that had none yet.

        Unknown ids are ignored: a request may end while its abort is under way.
        """
        indices: list[int] = []
        for sequence in self._requests.pop(request_id, ()):
            self.scheduler.remove(sequence)
            indices += range(sequence.index, sequence.index + 1 + sequence.num_siblings)
        return [_ended(request_id, index, "abort") for index in indices]

    def step(self) -> list[SequenceOutput]:
        """Compute one step and return what it added, sequence by sequence."""
        outputs, self._finished_early = self._finished_early, []
        work = self.scheduler.schedule()
        self.runner.forget_images(work.dropped_images)
        self.runner.encode(work.encodings)
        if not work.scheduled:
            return outputs
        logits, complete = self.runner.forward(work.scheduled)
        for item in work.scheduled:
            self.scheduler.advance(item)
        sequences = [item.sequence for item in complete]
        rows = list(range(len(sequences)))
        self._fork_siblings(sequences, rows)
        if sequences:
            token_ids = sampler.sample(logits if len(rows) == len(logits) else logits[rows], sequences)
            outputs += [self._commit(s, token_id) for s, token_id in zip(sequences, token_ids, strict=True)]
        self._num_steps += 1
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

    def _fork_siblings(self, sequences: list[Sequence], rows: list[int]) -> None:
        """Let further choices of a request start from the prompt that was just computed, on the same logits."""
        copies = []
        for row, sequence in enumerate(list(sequences)):
            for index in range(1, sequence.num_siblings + 1):
                sibling = self._sibling(sequence, index)
                if (copy := self.scheduler.fork(sequence, sibling)) is not None:
                    copies.append(copy)
                if sibling.num_computed:
                    sequences.append(sibling)
                    rows.append(row)
            sequence.num_siblings = 0
        self.runner.copy_blocks(copies)

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
                text = sequence.text.feed(self._token_bytes(token_id))
            reason = self._finish_reason(sequence, token_id)
        if reason is not None:
            text += sequence.text.flush()
            self.scheduler.remove(sequence)
            siblings = self._requests[sequence.request_id]
            siblings.remove(sequence)
            if not siblings:
                del self._requests[sequence.request_id]
        return SequenceOutput(
            request_id=sequence.request_id,
            index=sequence.index,
            text=text,
            num_tokens=int(token_id is not None),
            marker=marker,
            finish_reason=reason,
        )

    def _token_bytes(self, token_id: int) -> bytes:
        """Return what a token stands for; a model may have more rows in its head than the tokenizer has tokens."""
        table = self._vocabulary.token_bytes
        return table[token_id] if token_id < len(table) else b""

    def _finish_reason(self, sequence: Sequence, token_id: int) -> FinishReason | None:
        if token_id in self._vocabulary.eos_token_ids:
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
            images=first.images,
        )
        self._requests[first.request_id].append(sibling)
        return sibling


def _ended(request_id: str, index: int, reason: FinishReason) -> SequenceOutput:
    return SequenceOutput(request_id=request_id, index=index, text="", num_tokens=0, finish_reason=reason)
