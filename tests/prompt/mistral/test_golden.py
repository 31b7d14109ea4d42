"""Whole prompts of Mistral's checkpoints, token by token, to be read beside the documents of their formats."""

from __future__ import annotations

from typing import Any

from tests.prompt.mistral.requests import (
    BARE,
    ID,
    calls,
    encode_wire,
    image,
    system,
    text,
    thinking,
    tool,
    user,
)
from tests.prompt.mistral.tokenizers import reference


class TestReadableTokens:
    """Whole prompts, a token a line: `id  piece`."""

    def shown(self, name: str, wire: dict[str, Any]) -> list[str]:
        tokenizer = reference(name).instruct_tokenizer.tokenizer
        return [f"{i} {tokenizer.id_to_piece(i)}" for i in encode_wire(name, wire)]

    def test_v3(self) -> None:
        wire = {"messages": [system("Yes."), user("Hi")], "tools": [BARE]}
        assert self.shown("sentencepiece-v3", wire) == [
            "1 <s>",
            "6 [AVAILABLE_TOOLS]",  # before the last user message
            *["1501 ▁[", '7567 {"', "1891 type", '2032 ":', '1113 ▁"', "3396 function", '1316 ",', '1113 ▁"'],
            *["3396 function", '2032 ":', '10598 ▁{"', "1629 name", '2032 ":', '1113 ▁"', "4074 now"],
            *['1316 ",', '1113 ▁"', "7286 description", '2032 ":'],
            *['8657 ▁"",', '1113 ▁"', "12206 parameters"],
            *['2032 ":', "1139 ▁{", "1743 }}", "10925 }]"],
            "7 [/AVAILABLE_TOOLS]",
            "3 [INST]",
            "6360 ▁Yes",  # the system prompt is a part of the last user message
            "29491 .",
            "781 <0x0A>",
            "781 <0x0A>",
            "24577 Hi",
            "4 [/INST]",
        ]

    def test_v7(self) -> None:
        rest_of_id = ["29538 3", "29596 Z", "29488 p", "29592 Q", "29542 9", "29476 a", "29528 B", "29508 1"]
        messages = [system("Yes."), user("a"), calls((ID, "now", "{}")), tool("4")]
        assert self.shown("sentencepiece-v7", {"messages": messages}) == [
            "1 <s>",
            "16 [SYSTEM_PROMPT]",  # system messages stand where they are, between tokens of their own
            "6360 ▁Yes",
            "29491 .",
            "17 [/SYSTEM_PROMPT]",
            "3 [INST]",
            "1032 ▁a",
            "4 [/INST]",
            "5 [TOOL_CALLS]",  # once, before a list of calls
            *["1501 ▁[", '7567 {"', "1629 name", '2032 ":', '1113 ▁"', "4074 now", '1316 ",', '1113 ▁"'],
            *["17452 arguments", '2032 ":', "13450 ▁{},", '1113 ▁"', "1081 id", '2032 ":', '1113 ▁"'],
            "29497 k",
            *rest_of_id,
            '29507 "',
            "10925 }]",
            "2 </s>",
            "8 [TOOL_RESULTS]",
            "1214 ▁k",
            *rest_of_id,
            "18 [TOOL_CONTENT]",
            "29473 ▁",
            "29549 4",
            "9 [/TOOL_RESULTS]",
        ]

    def test_v11(self) -> None:
        the_id = ["207 k", "151 3", "190 Z", "212 p", "181 Q", "157 9", "197 a", "166 B", "149 1"]
        messages = [user("a"), calls((ID, "f", "{}")), tool("4")]
        assert self.shown("tekken-v11", {"messages": messages}) == [
            "1 <s>",
            "3 [INST]",
            "197 a",
            "4 [/INST]",
            "9 [TOOL_CALLS]",  # before every call
            "202 f",
            "21 [CALL_ID]",  # the last version that shows ids
            *the_id,
            "20 [ARGS]",
            "223 {",
            "225 }",
            "2 </s>",
            "7 [TOOL_RESULTS]",
            *the_id,
            "19 [TOOL_CONTENT]",
            "152 4",
            "8 [/TOOL_RESULTS]",
        ]

    def test_v13(self) -> None:
        messages = [user("a"), calls((ID, "f", "{}"), content=[thinking("b")]), tool("4")]
        assert self.shown("tekken-v13", {"messages": messages}) == [
            "1 <s>",
            "3 [INST]",
            "197 a",
            "4 [/INST]",
            "23 [THINK]",
            "198 b",
            "22 [/THINK]",
            "9 [TOOL_CALLS]",
            "202 f",
            "20 [ARGS]",  # no id: results come in the order of the calls
            "223 {",
            "225 }",
            "2 </s>",
            "7 [TOOL_RESULTS]",
            "152 4",
            "8 [/TOOL_RESULTS]",
        ]

    def test_v15(self) -> None:
        wire = {"messages": [user("a")], "reasoning_effort": "high"}
        assert self.shown("tekken-v15", wire) == [
            "1 <s>",
            "25 [MODEL_SETTINGS]",  # before the first user message, behind the tools
            *["223 {", '134 "', "373 re", "2246 ason", "402 ing", "195 _", "201 e", "709 ff", "549 ort"],
            *['1911 ":', '529  "', "204 h", "1327 igh", '134 "', "225 }"],
            "24 [/MODEL_SETTINGS]",
            "3 [INST]",
            "197 a",
            "4 [/INST]",
        ]

    def test_an_image(self) -> None:
        """56 x 28 pixels are two tokens of 28 x 28; the only image behind text comes first."""
        assert self.shown("tekken-v7", {"messages": [user([text("a"), image(56, 40)])]}) == [
            "1 <s>",
            "3 [INST]",
            "10 [IMG]",
            "10 [IMG]",
            "12 [IMG_BREAK]",
            "10 [IMG]",
            "10 [IMG]",
            "13 [IMG_END]",
            "197 a",
            "4 [/INST]",
        ]
