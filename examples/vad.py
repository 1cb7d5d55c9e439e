"""Voice activity detection: a trained LSTM out of an ONNX file, streamed by rnnkern between two halves of onnxruntime.

The network is that of the package silero-vad, the speech that of Debian's package alsa-utils, with silence and noise
between the phrases. The exit code is 0 if the probabilities of speech are those of onnxruntime alone, and speech is
found where it is.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
from arguments import add_plot, save
from onnx.utils import Extractor
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.io import wavfile
from scipy.signal import resample_poly

import rnnkern.onnx

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORDINGS = Path("/usr/share/sounds/alsa")
NOISE = "Noise"
RATE, CHUNK, CONTEXT = 16000, 512, 64
"""Samples a second, in a step of the network, and of the step before that it sees again."""
SPEECH = 0.5
"""Probability from which on a chunk is speech."""
HANGOVER = 0.1
"""Seconds for which the network still hears what has just ended."""
PART_SPOKEN = 1 / 3
"""Of a recording of two words and the pauses around them, at least."""
TOLERANCE = 1e-5

Span = tuple[float, float]
"""Begin and end, in seconds."""
Step = Callable[[np.ndarray], float]
"""From CONTEXT + CHUNK samples, the next of a stream, to a probability of speech."""

BRANCH = "If_0_then_branch__Inline_0__"
"""The part of the model for 16 kHz: a subgraph of its If."""
ENCODED = BRANCH + "/encoder/3/activation/Relu_output_0"
LSTM = BRANCH + "/decoder/rnn/LSTM"
HIDDEN = BRANCH + "/decoder/If_1_output_0"
PROBABILITY = BRANCH + "/decoder/decoder/3/Sigmoid_output_0"


def session(model: bytes) -> onnxruntime.InferenceSession:
    """With one thread, as silero-vad does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Whole:
    """The model as it is, all of it in onnxruntime."""

    def __init__(self, model: bytes) -> None:
        self.session = session(model)
        self.state = np.zeros((2, 1, 128), np.float32)

    def step(self, samples: np.ndarray) -> float:
        feed = {"input": samples[None], "state": self.state, "sr": np.array(RATE)}
        probability, self.state = self.session.run(None, feed)
        return probability.item()


class Split:
    """The model's encoder and decoder in onnxruntime, and between them its LSTM as a stream of rnnkern."""

    def __init__(self, model: bytes) -> None:
        proto = onnx.load_model_from_string(model)
        switch = next(node for node in proto.graph.node if node.op_type == "If")
        branch = onnx.helper.get_node_attr_value(switch, "then_branch")
        floats = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in ("input", ENCODED, HIDDEN, PROBABILITY)
        ]
        graph = onnx.helper.make_graph(branch.node, "16 kHz", [], [], value_info=floats)
        options = {"opset_imports": proto.opset_import, "ir_version": proto.ir_version}
        extractor = Extractor(onnx.helper.make_model(graph, **options))
        self.encoder, self.decoder = (
            session(extractor.extract_model([start], [end]).SerializeToString())
            for start, end in (("input", ENCODED), (HIDDEN, PROBABILITY))
        )
        self.stream = rnnkern.onnx.load(proto, LSTM).stream()
        self.seconds = 0.0

    def step(self, samples: np.ndarray) -> float:
        (encoded,) = self.encoder.run(None, {"input": samples[None]})  # (1, 128, 1)
        started = time.perf_counter()
        h = self.stream.step(encoded[:, :, 0])
        self.seconds += time.perf_counter() - started
        return self.decoder.run(None, {HIDDEN: h})[0].item()


def run(step: Step, sound: np.ndarray, advance: Callable[[], None]) -> tuple[float, np.ndarray]:
    """Seconds, and the probability of speech of every chunk."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    seconds, probabilities = 0.0, []
    for start in range(0, len(sound) - CHUNK + 1, CHUNK):
        started = time.perf_counter()
        probabilities.append(step(padded[start : start + CONTEXT + CHUNK]))
        seconds += time.perf_counter() - started
        advance()
    return seconds, np.array(probabilities)


def read(folder: Path) -> dict[str, np.ndarray]:
    """The recordings by name, resampled."""
    sounds = {}
    for path in sorted(folder.glob("*.wav")):
        rate, samples = wavfile.read(path)
        sounds[path.stem] = resample_poly(samples / 2**15, RATE, rate).astype(np.float32)
    return sounds


def scene(sounds: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, Span]]:
    """The phrases one after the other, between noise and silence of a second, and when they are said."""
    pauses = itertools.cycle([sounds[NOISE][:RATE], np.zeros(RATE, np.float32)])
    parts, spans, length = [next(pauses)], {}, RATE
    for name, sound in sounds.items():
        if name != NOISE:
            spans[name] = length / RATE, (length + len(sound)) / RATE
            parts += [sound, next(pauses)]
            length += len(sound) + RATE
    return np.concatenate(parts), spans


def heard(probabilities: np.ndarray, spans: dict[str, Span]) -> tuple[dict[str, float], int]:
    """Which part of each phrase is found to be speech, and how many chunks elsewhere are."""
    begins = np.arange(len(probabilities)) * CHUNK / RATE
    ends, speech = begins + CHUNK / RATE, probabilities >= SPEECH
    parts, elsewhere = {}, speech
    for name, (begin, end) in spans.items():
        parts[name] = float(speech[(ends > begin) & (begins < end)].mean())
        elsewhere = elsewhere & ((ends <= begin) | (begins >= end + HANGOVER))
    return parts, int(elsewhere.sum())


def plot(sound: np.ndarray, probabilities: np.ndarray, spans: dict[str, Span]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(len(sound)) / RATE, sound, color="0.6", linewidth=0.3, label="waveform")
    ends = (1 + np.arange(len(probabilities))) * CHUNK / RATE
    axes.step(ends, probabilities, color="tab:red", where="pre", label="probability of speech")
    for name, (begin, end) in spans.items():
        axes.axvspan(begin, end, color="tab:blue", alpha=0.1, linewidth=0)
        axes.text((begin + end) / 2, 1.03, name.replace("_", " "), ha="center", fontsize="small")
    axes.set(xlabel="seconds", xlim=(0, len(sound) / RATE), ylim=(-0.75, 1.12))
    axes.legend(loc="lower right", ncols=2)
    return figure


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recordings", type=Path, default=RECORDINGS, help="folder of .wav files (%(default)s)")
    parser.add_argument("--short", action="store_true", help="two of the phrases")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the phrases")
    add_plot(parser, "the waveform, and the probability of speech over it")
    options = parser.parse_args(argv)
    sounds = read(options.recordings)
    if len(sounds) < 2 or NOISE not in sounds:
        parser.error(f"there is no speech, or no {NOISE}.wav, in {options.recordings}: apt-get install alsa-utils")
    try:
        package = metadata.distribution("silero-vad")
    except metadata.PackageNotFoundError:
        parser.error("the trained network is missing: pip install --no-deps silero-vad")  # its code would need PyTorch
    model = Path(str(package.locate_file("silero_vad/data/silero_vad.onnx"))).read_bytes()

    phrases = sorted(sounds.keys() - {NOISE})
    random.Random(options.seed).shuffle(phrases)
    sound, spans = scene({name: sounds[name] for name in (NOISE, *phrases[: 2 if options.short else None])})
    console, split = Console(highlight=False), Split(model)
    names = {"onnxruntime": Whole(model).step, "onnxruntime, and rnnkern for the LSTM": split.step}
    seconds, results = {}, {}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("listening", total=len(names) * (len(sound) // CHUNK))
        for name, step in names.items():
            seconds[name], results[name] = run(step, sound, lambda: progress.advance(bar))
    expected, probabilities = results.values()
    parts, elsewhere = heard(probabilities, spans)

    table = Table("phrase", title=f"{len(sound) / RATE:.1f} s of sound", title_justify="left")
    for heading in ("from", "to (s)", "found to be speech"):
        table.add_column(heading, justify="right")
    for name, (begin, end) in spans.items():
        table.add_row(name, f"{begin:.1f}", f"{end:.1f}", f"{parts[name]:.0%}")
    console.print(table)
    console.print(f"chunks found to be speech where there is none: {elsewhere}")
    times = Table("")
    for heading in ("seconds", "µs a chunk"):
        times.add_column(heading, justify="right")
    for name, spent in (seconds | {"of which the LSTM": split.seconds}).items():
        times.add_row(name, f"{spent:.3f}", f"{1e6 * spent / len(expected):.0f}")
    console.print(times)
    difference = float(np.abs(probabilities - expected).max())
    console.print(f"the probabilities differ by {difference:.1e} at most")
    if options.plot:
        save(plot(sound, probabilities, spans), options.plot, console, dpi=150)
    return 0 if difference <= TOLERANCE and min(parts.values()) >= PART_SPOKEN and not elsewhere else 1


if __name__ == "__main__":
    raise SystemExit(main())
