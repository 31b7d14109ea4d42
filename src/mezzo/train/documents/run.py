"""A whole run of `mezzo train documents`, in one folder that is complete after any kill and the same command again.

run.json            what the run was begun with
state.safetensors   the update and the optimizer, to go on from
log.jsonl           a line for some steps, and for what is held out after each epoch
adapter/            the update alone, in PEFT's form
checkpoint/         the weights with the update merged, as `mezzo export` writes them
curves.png          the log, drawn, where matplotlib is installed
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mezzo.backends.embedded import check_agreement
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.export import write_checkpoint
from mezzo.model.network import Network
from mezzo.model.weight_files import weight_files
from mezzo.prompt.load import load_encoder
from mezzo.train.documents.adapter import merge_lora, write_adapter
from mezzo.train.documents.batches import plan, split
from mezzo.train.documents.corpus import Corpus, read_corpus
from mezzo.train.documents.learner import Learner
from mezzo.train.documents.loop import Loop, Report, Steps
from mezzo.train.documents.pictures import Pictures
from mezzo.train.documents.samples import SampleMaker
from mezzo.train.errors import CannotTrain
from mezzo.train.log import read_log
from mezzo.train.lora import add_lora
from mezzo.train.plot import draw_curves
from mezzo.train.run_folder import claim_folder
from mezzo.weights import companion_files


@dataclass(frozen=True)
class Options:
    """What decides about the result; a run that goes on must have the same.

    rank            of the update of each matrix
    batch_tokens    read in one step, padding included; a longer sample is a step of its own
    max_tokens      of a prompt with its answer
    held_out        share of the lines that are not learnt but measured
    """

    rank: int = 16
    epochs: int = 3
    learning_rate: float = 2e-4
    batch_tokens: int = 2048
    max_tokens: int = 2048
    skip_long: bool = False
    held_out: float = 0.1
    seed: int = 2025


@dataclass(frozen=True)
class DocumentsRun:
    """Where a run is, what it reads, and what it runs on.

    weights        checkpoint folder to begin from
    base           how people call these weights
    saves_memory   see `Learner`
    save_every_s   at most so much is done twice after a kill, and a step
    """

    folder: Path
    data: Path
    weights: Path
    base: str
    options: Options
    device: torch.device
    dtype: torch.dtype
    saves_memory: bool = False
    save_every_s: float = 120.0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def train(
        self,
        report: Report,
        say: Callable[[str], None],
        advance: Callable[[int], None] = lambda num_lines: None,
    ) -> Path:
        """Read all data, train what is not trained, write what is not written. Returns the checkpoint's folder.

        report    called with each line of the log
        say       called with a sentence for the operator
        advance   called with the number of lines read
        Raises: CannotTrain, UnsupportedCheckpoint, UnsupportedTokenizer, CannotExport, FloatingPointError, OSError.
        """
        config = ModelConfig.from_folder(self.weights)
        corpus = self._read(config, advance)
        learnt, held_out = split(corpus.samples, self.options.held_out, self.options.seed)
        self._claim_folder(corpus)
        say(_summary(corpus, len(learnt), len(held_out)))
        if self.checkpoint.is_dir():
            return self.checkpoint
        network = load_network(self.weights, config, dtype=self.dtype, device=self.device)
        torch.manual_seed(self.options.seed)
        named = add_lora(network.decoder, self.options.rank)
        # Dots would be paths of modules.
        updates = nn.ParameterDict({name.replace(".", "/"): update for name, update in named.items()})
        steps = Steps(
            learnt=learnt,
            held_out=held_out,
            batches=plan(learnt, self.options.epochs, self.options.batch_tokens, self.options.seed),
            batch_tokens=self.options.batch_tokens,
            learning_rate=self.options.learning_rate,
            state=self.folder / "state.safetensors",
            log=self.folder / "log.jsonl",
            save_every_s=self.save_every_s,
        )
        Loop(self._learner(network, corpus), updates, steps, report).run()
        try:
            draw_curves({self.base: read_log(steps.log)}, self.folder / "curves.png")
        except ImportError:
            say("curves.png is left out: it needs matplotlib, which `pip install 'mezzo[train]'` brings")
        write_adapter(named, network.config, self.base, self.folder / "adapter")
        merge_lora(network.decoder)
        write_checkpoint(
            network, self.checkpoint, source=self.weights, companions=companion_files(self.weights)
        )
        return self.checkpoint

    def _read(self, config: ModelConfig, advance: Callable[[int], None]) -> Corpus:
        encoder = load_encoder(self.weights)
        check_agreement(config, encoder)
        longest = min(config.max_seq_len, config.sliding_window or config.max_seq_len)
        return read_corpus(
            self.data,
            SampleMaker(encoder, can_see=config.vision is not None),
            max_tokens=min(self.options.max_tokens, longest),
            skip_long=self.options.skip_long,
            advance=advance,
        )

    def _learner(self, network: Network, corpus: Corpus) -> Learner:
        vision = network.vision
        if vision is None:
            return Learner(network.decoder, None, None, self.saves_memory)
        pictures = Pictures(corpus, vision, self.device)
        return Learner(network.decoder, pictures, vision.config.image_token_id, self.saves_memory)

    def _claim_folder(self, corpus: Corpus) -> None:
        """A run that goes on must be the same run, on the same data and weights."""
        wanted: dict[str, Any] = {
            "data_sha256": corpus.sha256,
            "samples_sha256": corpus.fingerprint,
            "weights": fingerprint(self.weights),
            "dtype": str(self.dtype).removeprefix("torch."),
        } | asdict(self.options)
        found = claim_folder(self.folder, wanted)
        for name, value in wanted.items():
            if found.get(name) != value:
                raise CannotTrain(
                    f"{self.folder} holds a run whose {name} is {found.get(name)}, not {value}; give another folder, "
                    "or the same data, weights and options"
                )


def fingerprint(weights: Path) -> str:
    """Return SHA-256 of a checkpoint's configuration and of its weight files' names and sizes: cheap, no proof."""
    digest = hashlib.sha256()
    for name in ("config.json", "params.json"):
        if (weights / name).is_file():
            digest.update((weights / name).read_bytes())
    for file in weight_files(weights):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _summary(corpus: Corpus, num_learnt: int, num_held_out: int) -> str:
    num_targets = sum(len(sample.targets) for sample in corpus.samples)
    num_tokens = sum(len(sample.token_ids) for sample in corpus.samples)
    num_pictures = len({picture for sample in corpus.samples for picture in sample.pictures})
    skipped = f"; {corpus.num_long} answers left out as too long" if corpus.num_long else ""
    return (
        f"{len(corpus.offsets)} lines: {num_learnt} samples to learn, {num_held_out} held out, {num_tokens} tokens, "
        f"{num_targets} of them to learn, {num_pictures} pictures{skipped}"
    )
