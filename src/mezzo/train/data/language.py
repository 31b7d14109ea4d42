"""What users say without a picture, so that a decoder that learns to see keeps its language.

Only prompts: the answers are the decoder's own, made before it is trained.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from mezzo.train.data.fonts import Split
from mezzo.train.data.vocabulary import CITIES, FIRST_NAMES, GOODS, JOBS, Halves

TOPICS = Halves(
    ("the moon", "volcanoes", "coffee", "the ocean", "bicycles", "bees", "democracy", "photosynthesis", "gravity",
     "chess", "the Roman Empire", "trains", "vaccines", "jazz", "glaciers", "the human heart", "recycling", "bread",
     "solar power", "the internet", "tea", "elephants", "earthquakes", "printing", "the alphabet", "clouds", "sleep",
     "money", "bridges", "the sun", "rivers", "computers", "paper", "honey", "football", "maps", "music", "forests",
     "dinosaurs", "rain", "robots", "libraries", "lightning", "whales", "glass", "steel", "the calendar", "cheese"),
    ("comets", "windmills", "chocolate", "deserts", "violins", "ants", "magnets", "the Olympics", "submarines",
     "compasses", "wolves", "the printing press", "cotton", "tides", "telescopes"),
)  # fmt: skip
FACTS = Halves(
    ("What is {topic}?", "Tell me one fact about {topic}.", "Explain {topic} in one sentence.",
     "Why does {topic} matter?", "Explain {topic} to a child.", "Write two sentences about {topic}.",
     "What should I know about {topic}?", "Give me a short definition of {topic}.",
     "What do people often get wrong about {topic}?", "Ask me a question about {topic}.",
     "Name three words that go with {topic}.", "Write a title for an article about {topic}.",
     "Write a very short poem about {topic}.", "List three facts about {topic}.", "Describe {topic} briefly."),
    ("In a few words: what is {topic}?", "Make up a riddle about {topic}.", "What is interesting about {topic}?",
     "Give two reasons to study {topic}.", "Summarize what you know about {topic}."),
)  # fmt: skip
SENTENCES = Halves(
    ("{name} bought {good} in {city}.", "The {job} from {city} was late again.", "{name} wants to become a {job}.",
     "We have no {good} left.", "My friend {name} lives in {city}.", "The train to {city} leaves at noon.",
     "{name} told the {job} about the {good}.", "I forgot the {good} at home.", "The weather in {city} is fine."),
    ("{name} moved to {city} last year.", "The {job} likes {good}.", "Nobody in {city} knew {name}."),
)  # fmt: skip
REWRITES = Halves(
    ("Rewrite politely: {sentence}", "Make this longer: {sentence}", "Say this in other words: {sentence}",
     "Put this into the past tense: {sentence}", "Correct this if it is wrong: {sentence}",
     "Turn this into a question: {sentence}", "Repeat exactly: {sentence}", "Write this in capitals: {sentence}",
     "Who or what is this sentence about? {sentence}", "Continue the story: {sentence}",
     "How many words does this have? {sentence}", "Is this sentence happy, sad or neutral? {sentence}"),
    ("Paraphrase: {sentence}", "Negate this: {sentence}", "Write a reply to this: {sentence}"),
)  # fmt: skip
REQUESTS = Halves(
    ("List three things a {job} needs.", "What does a {job} do?", "Write a short message from a {job} to {name}.",
     "Suggest a gift for {name}, who is a {job}.", "Give me a short recipe with {good}.",
     "List four things to buy besides {good}.", "In which country is {city}?", "Name two things to see in {city}.",
     "Write a greeting for {name}.", "Write a two-line email to {name} about {good}.",
     "What goes well with {good}?",
     "My name is {name}. Say hello.", "Plan a day in {city} in three lines.",
     "Invent a shop in {city} that sells {good}.",
     "Write a haiku about {city}.", "Is {good} something to eat? Answer yes or no.",
     "Describe {city} in one sentence."),
    ("Thank {name} for the {good}.", "What tools does a {job} use?", "Write a postcard from {city}.",
     "Where can one buy {good}?"),
)  # fmt: skip
SMALL_TALK = Halves(
    ("Hello!", "How are you?", "Good morning.", "Thanks a lot!", "Who are you?", "What can you do?", "Tell me a joke.",
     "I am bored.", "I am tired today.", "Can you help me?", "Good night!", "What is your name?", "Do you like music?",
     "Say something nice.", "I had a bad day.", "Let us talk.", "What should I cook tonight?", "Goodbye.", "Sorry.",
     "Can you see pictures?", "Are you a robot?", "Recommend a book.", "What is a good hobby?", "Wish me luck."),
    ("Hi there.", "How is it going?", "See you tomorrow.", "I need some advice.", "Cheer me up.", "What is new?"),
)  # fmt: skip
TOOLS = (
    ("get_weather", "city", "Returns the weather in a city.", "What is the weather in {city}?",
     ('{{"sky": "clear", "degrees": {number}}}', '{{"sky": "rain", "degrees": {number}}}')),
    ("find_person", "name", "Looks up a person's job.", "What is {name}'s job?",
     ('{{"name": "{name}", "job": "{job}"}}', '{{"error": "{name} was not found"}}')),
    ("get_stock", "item", "Returns how many of an item are in stock.", "How many {good} do we have?",
     ('{{"item": "{good}", "stock": {number}}}', '{{"error": "unknown item {good}"}}')),
    ("get_time", "city", "Returns the local time of a city.", "What time is it in {city}?",
     ('{{"city": "{city}", "hour": {number}}}',)),
)  # fmt: skip
TOOL_FORMS = Halves(
    ("You can call {tool}({argument}): {purpose}\nUser: {question}\nResult of {tool}: {result}\nAnswer the user.",
     "Tool {tool}, argument {argument}. {purpose}\nIt returned {result}. Now answer: {question}",
     "You have a tool {tool}({argument}). {purpose} To call it, write only CALL {tool}(...).\n{question}",
     "{question}\n\nThe tool {tool} says: {result}"),
    ("Given the output {result} of {tool}({argument}), answer: {question}",
     "Here is a function: {tool}({argument}). {purpose}\nWhich call answers this? {question}"),
)  # fmt: skip


def prompts(split: Split, count: int = 4000, seed: int = 0) -> tuple[str, ...]:
    """Return up to `count` different prompts, kinds of them in turn; the same seed gives the same ones."""
    rng = random.Random(f"{seed} {split}")
    found: dict[str, None] = {}
    for prompt in itertools.islice(_endless(rng, split), 20 * count):
        found[prompt] = None
        if len(found) == count:
            break
    return tuple(found)


def _endless(rng: random.Random, split: Split) -> Iterator[str]:
    while True:
        yield rng.choice(_half(FACTS, split)).format(topic=rng.choice(_half(TOPICS, split)))
        sentence = _filled(rng, rng.choice(_half(SENTENCES, split)), split)
        yield rng.choice(_half(REWRITES, split)).format(sentence=sentence)
        yield _filled(rng, rng.choice(_half(REQUESTS, split)), split)
        yield _tool(rng, split)
        if rng.random() < 0.05:
            yield rng.choice(_half(SMALL_TALK, split))


def _tool(rng: random.Random, split: Split) -> str:
    tool, argument, purpose, question, results = rng.choice(TOOLS)
    fields = _fields(rng, split)
    return rng.choice(_half(TOOL_FORMS, split)).format(
        tool=tool,
        argument=argument,
        purpose=purpose,
        question=question.format(**fields),
        result=rng.choice(results).format(**fields),
    )


def _filled(rng: random.Random, template: str, split: Split) -> str:
    return template.format(**_fields(rng, split))


def _fields(rng: random.Random, split: Split) -> dict[str, str]:
    return {
        "name": rng.choice(_half(FIRST_NAMES, split)),
        "city": rng.choice(_half(CITIES, split)),
        "good": rng.choice(_half(GOODS, split)).lower(),
        "job": rng.choice(_half(JOBS, split)).lower(),
        "number": str(rng.randint(0, 30)),
    }


def _half(halves: Halves, split: Split) -> tuple[str, ...]:
    return halves.train if split == "train" else halves.held_out
