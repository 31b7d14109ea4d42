"""Images through the engine: answers are those of the network computed at once, however the engine goes about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from msgspec import structs
from torch import Tensor

from mezzo.engine.config import Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.messages import AddRequest, ImageInput
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.attention import SequenceSpan, plan_attention
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network
from mezzo.model.vision_config import VisionConfig
from tests import tiny
from tests.tiny import CPU, EOS, VOCAB_SIZE, make_core, run

IMAGE, BREAK, END = 257, 258, 259
EDGE = 4  # pixels of a merged patch
# Every token is one character of its own, and none ends the answer.
LATIN = Vocabulary(
    token_bytes=tuple(chr(0x100 + i).encode() for i in range(VOCAB_SIZE)), eos_token_ids=frozenset()
)
NUM_ANSWER_TOKENS = 8


def make_network() -> Network:
    vision = VisionConfig(
        hidden_size=32,
        image_size=64,
        patch_size=2,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        spatial_merge_size=2,
        patch_merger=True,
        image_token_id=IMAGE,
    )
    config = replace(ModelConfig.from_hf(tiny.HF_CONFIG), vision=vision)
    network = Network.from_config(config, torch.float32).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        is_norm = parameter.ndim == 1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + is_norm)
        if name == "vision.projector.w_out.weight":
            parameter.mul_(3)  # what is seen must matter beside what is read
    return network


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


def make_pixels(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows * EDGE, columns * EDGE, 3), dtype=torch.uint8, generator=generator)


def tokens_of(pixels: Tensor) -> list[int]:
    rows, columns = pixels.shape[0] // EDGE, pixels.shape[1] // EDGE
    return ([IMAGE] * columns + [BREAK]) * (rows - 1) + [IMAGE] * columns + [END]


def make_request(
    *content: bytes | Tensor, request_id: str = "r", n: int = 1, max_tokens: int = NUM_ANSWER_TOKENS
) -> AddRequest:
    """Make a greedy request from texts and images in order."""
    token_ids: list[int] = []
    images = []
    for part in content:
        if isinstance(part, bytes):
            token_ids += part
            continue
        images.append(
            ImageInput(
                key=part.numpy().tobytes()[:32] + str(part.shape).encode(),
                start=len(token_ids),
                num_tokens=len(tokens_of(part)),
                height=part.shape[0],
                width=part.shape[1],
                pixels=part.numpy().tobytes(),
            )
        )
        token_ids += tokens_of(part)
    params = SamplingParams(max_tokens=max_tokens)
    return AddRequest(
        request_id=request_id, prompt_token_ids=token_ids, params=params, n=n, images=tuple(images)
    )


def answer_at_once(network: Network, *content: bytes | Tensor) -> str:
    """Answer greedily, the whole text computed anew for each token, all images encoded in one go."""
    token_ids = make_request(*content).prompt_token_ids
    pixels = [part for part in content if not isinstance(part, bytes)]
    embeddings = torch.cat(network.vision(pixels)) if pixels else torch.empty(0, network.config.dim)
    for _ in range(NUM_ANSWER_TOKENS):
        cache = KVCache(network.config, num_blocks=8, block_size=64, dtype=torch.float32, device=CPU)
        span = SequenceSpan(list(range(8)), 0, len(token_ids))
        ids = torch.tensor(token_ids)
        rows = torch.tensor([i for i, token_id in enumerate(token_ids) if token_id == IMAGE])
        logits = network.decoder(
            ids,
            torch.arange(len(ids)),
            plan_attention([span], cache, network.config, torch.float32, CPU),
            cache,
            torch.tensor([len(ids) - 1]),
            image_rows=rows[: len(embeddings)],
            image_embeddings=embeddings,
        )
        token_ids = [*token_ids, int(logits.argmax())]
    return b"".join(LATIN.token_bytes[i] for i in token_ids[-NUM_ANSWER_TOKENS:]).decode()


def ask(core: EngineCore, *content: bytes | Tensor) -> str:
    return run(core, make_request(*content)).texts["r", 0]


CONTENTS: dict[str, tuple[bytes | Tensor, ...]] = {
    "one": (b"What is ", make_pixels(3, 5), b"?"),
    "several": (b"a", make_pixels(1, 1), make_pixels(4, 2, 1), b"or", make_pixels(2, 6, 2), b"?"),
    "image first": (make_pixels(2, 2), b"that"),
    "image last": (b"Look: ", make_pixels(3, 3)),
    "the same twice": (make_pixels(2, 3), b"=", make_pixels(2, 3)),
}


@pytest.mark.parametrize("max_step_tokens", [3, 16, 256])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_the_answer_is_the_networks(
    network: Network, content: tuple[bytes | Tensor, ...], max_step_tokens: int
) -> None:
    core = make_core(network, vocabulary=LATIN, max_step_tokens=max_step_tokens, max_num_seqs=3)
    text = ask(core, *content)
    assert len(text) == NUM_ANSWER_TOKENS
    assert text == answer_at_once(network, *content)


def test_what_is_seen_matters(network: Network) -> None:
    """Else the tests above could pass on a model that looks at nothing."""
    core = make_core(network, vocabulary=LATIN)
    answers = {ask(core, b"What is ", make_pixels(3, 5, seed), b"?") for seed in range(4)}
    assert len(answers) == 4


def test_a_second_turn_about_a_picture_does_not_encode_it_again(network: Network) -> None:
    core = make_core(network, vocabulary=LATIN)
    first = ask(core, b"What is ", make_pixels(3, 5), b"?")
    assert (core.stats.num_image_misses, core.stats.num_image_hits) == (1, 0)
    second = ask(core, b"What is ", make_pixels(3, 5), b"?" + first.encode()[:4] + b"Sure?")
    assert (core.stats.num_image_misses, core.stats.num_image_hits) == (1, 1)
    assert len(second) == NUM_ANSWER_TOKENS


def test_a_picture_in_a_cached_prompt_is_not_looked_at_again_and_another_is(network: Network) -> None:
    """All have the same size, so that only the content tells their tokens apart."""
    core = make_core(network, vocabulary=LATIN, block_size=8)
    for seed in (0, 1, 2, 0, 1, 2):
        content = (b"What is ", make_pixels(3, 5, seed), b"? And who are you?")
        request = structs.replace(make_request(*content), cache_salt=b"salt")
        assert run(core, request).texts["r", 0] == answer_at_once(network, *content)
    assert core.stats.num_prefix_misses == 1
    assert core.stats.num_prefix_hits == 5
    assert core.stats.num_cached_tokens == 2 * 8 + 3 * 40, (
        "the words before the picture, and then all full blocks"
    )
    assert (core.stats.num_image_misses, core.stats.num_image_hits) == (3, 0)


def test_many_requests_at_once_on_little_room(network: Network) -> None:
    """With preemption, and a cache of embeddings that holds none: whatever was lost is computed again."""
    core = make_core(
        network, vocabulary=LATIN, num_blocks=12, block_size=4, max_step_tokens=256, image_cache_tokens=0
    )
    contents = {f"r{seed}": (b"Say ", make_pixels(2, 3, seed % 3), b"?") for seed in range(6)}
    done = run(core, *(make_request(*content, request_id=name) for name, content in contents.items()))
    assert core.stats.num_preemptions > 0
    for name, content in contents.items():
        assert done.texts[name, 0] == answer_at_once(network, *content)
    core.scheduler.image_cache.check_integrity([])


def test_choices_share_the_pictures_of_their_prompt(network: Network) -> None:
    core = make_core(network, vocabulary=LATIN)
    content = (b"Say ", make_pixels(2, 3), b"?")
    done = run(core, make_request(*content, n=3))
    assert {done.texts["r", index] for index in range(3)} == {answer_at_once(network, *content)}
    assert core.stats.num_image_misses == 1


def test_streams_advance_while_a_large_picture_is_encoded(network: Network) -> None:
    core = make_core(network, vocabulary=LATIN, max_step_tokens=16, max_num_seqs=4)
    core.add(make_request(b"Hello", request_id="stream", max_tokens=100))
    core.step()
    core.add(make_request(make_pixels(12, 12), request_id="picture", max_tokens=1))
    num_steps = 0
    while True:
        names = [output.request_id for output in core.step()]
        assert names[:1] == ["stream"], "a step without a token for the stream"
        if "picture" in names:
            break
        num_steps += 1
    layers, cost = core.runner.encoding_cost(12 * EDGE, 12 * EDGE)
    assert num_steps >= layers, f"{layers} layers of {cost} tokens each were run in {num_steps} steps of 16"


def test_an_abort_amid_an_encoding_leaves_nothing_behind(network: Network) -> None:
    core = make_core(network, vocabulary=LATIN, max_step_tokens=8)
    core.add(make_request(make_pixels(12, 12)))
    core.step()
    core.abort("r")
    core.scheduler.check_integrity()
    assert ask(core, make_pixels(12, 12)) == answer_at_once(network, make_pixels(12, 12))


def altered(request: AddRequest, **changes: object) -> AddRequest:
    """Return the request with its one image changed, or its tokens."""
    (image,) = request.images
    fields = {name: getattr(image, name) for name in image.__struct_fields__} | changes
    token_ids = fields.pop("token_ids", request.prompt_token_ids)
    return AddRequest(
        request_id="r", prompt_token_ids=token_ids, params=request.params, images=(ImageInput(**fields),)
    )


ONE = make_request(b"ab", make_pixels(2, 2), b"c")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (altered(ONE, start=3), "an image of 4 embeddings is given 3 tokens"),
        (altered(ONE, start=-1), "an image is placed at -1"),
        (altered(ONE, num_tokens=100), "an image is placed at 2 to 102"),
        (altered(ONE, height=12), "an image of 6 embeddings is given 4 tokens"),
        (altered(ONE, height=7), "an image of 8x7 pixels is not made of patches of 4"),
        (altered(ONE, height=0), "is not made of patches of 4"),
        (altered(ONE, pixels=b""), "an image of 4 embeddings is given 4 tokens and 0 bytes"),
        (altered(ONE, token_ids=[*ONE.prompt_token_ids, IMAGE]), "an image token without an image"),
        (AddRequest(request_id="r", prompt_token_ids=[IMAGE], params=SamplingParams()), "without an image"),
    ],
)
def test_images_that_do_not_fit_their_places_are_refused(
    network: Network, request_: AddRequest, message: str
) -> None:
    core = make_core(network)
    with pytest.raises(ValueError, match=message):
        core.add(request_)
    assert not core.has_work


def test_a_model_without_eyes_refuses_images(network: Network) -> None:
    blind = Network(make_network().decoder)
    with pytest.raises(ValueError, match="no vision encoder"):
        make_core(blind).add(ONE)


def test_markers_are_reported_between_texts(network: Network) -> None:
    """A marker is told by its id, after the text before it; text that was held for a stop string comes first."""
    whole = ask(make_core(network, vocabulary=LATIN), b"Hello")
    core = make_core(network, vocabulary=LATIN)
    core.add(make_request(b"Hello"))
    ids = []
    while core.has_work:
        core.step()
        ids = [s.tokens_between(5, s.num_tokens) for s in core.scheduler.running] or ids
    place = next(i for i in range(1, len(whole)) if whole[i] not in whole[:i])
    marker = ids[0][place]
    vocabulary = Vocabulary(
        token_bytes=LATIN.token_bytes, eos_token_ids=frozenset({EOS}), marker_token_ids=frozenset({marker})
    )
    request = make_request(b"Hello")
    params = SamplingParams(max_tokens=NUM_ANSWER_TOKENS, stop=(whole[place - 1] + "never",))
    core = make_core(network, vocabulary=vocabulary)
    core.add(AddRequest(request_id="r", prompt_token_ids=request.prompt_token_ids, params=params))
    outputs = []
    while core.has_work:
        outputs += core.step()
    marked = [output for output in outputs if output.marker is not None]
    assert {output.marker for output in marked} == {marker}
    assert sum(output.num_tokens for output in outputs) == NUM_ANSWER_TOKENS
    before = "".join(output.text for output in outputs[: outputs.index(marked[0]) + 1])
    assert before == whole[:place]
