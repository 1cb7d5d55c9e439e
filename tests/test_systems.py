"""Every system of docs/gallery.md by the public interface: what is tested elsewhere is named, the rest is here.

Their known answers are in test_known_answers.py.
"""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from test_reference import central_differences

import rnnkern
from harness import assert_same_bits
from tolerance import CENTRAL_DIFFERENCE, assert_close

TESTS = {
    "S1 Elman network": "known_answers.elman_bptt known_answers.linear_counter kernels.shapes",
    "S2 output layer and loss": "cross_entropy.kernels_match_the_reference gradients_of_network_and_output_layer",
    "S3 Jordan network": "jordan.against_a_loop_in_pytorch jordan.with_the_identity_as_output_layer_it_is_elman",
    "S4 bidirectional": "both_directions kernels.options",
    "S5 deep": "layers_on_top_of_each_other layers.dropout_acts_in_forward_only_and_scales",
    "S6 LSTM": "lstm_of_five_gates known_answers.memory_cell_by_hand",
    "S7 peepholes": "lstm_of_five_gates reference.gradients",
    "S8 both kinds of GRU": "both_kinds_of_gru known_answers.gru_with_open_gates_is_elman reference.torch",
    "S9 coupled gates": "lstm_of_five_gates kernels.rows_of_the_derived_gate_are_ignored",
    "S10 projection": "lstm_of_five_gates reference.torch",
    "S11 one and many": "layers.the_last_outputs_are_those_of_the_sequence layers.generate layers.step_shapes",
    "S12 variable lengths": "promises.a_sequence_is_the_same_in_any_batch reference.a_ragged_batch_is_its_sequences",
    "S13 language model": "a_language_model_reads_and_writes example_language_model.language_models",
    "S14 slot filling": "the_slot_of_a_word_is_in_its_context example_slot_filling.slot_filling",
    "S15 sequence to sequence": "encoder_and_decoder example_seq2seq.seq2seq_learns_and_says_when_not",
    "S16 structured output": "a_linear_chain_on_both_directions example_segmentation.taggers_by_all_sequences",
    "S17 classification": "classification_in_pytorch example_classify.classify_gives_the_same_classes",
    "S18 number of parameters": "number_of_parameters",
    "S19 vanishing gradients": "gradients_vanish_or_explode plot.gradient_flow_draws_the_norms",
    "S20 inside": "promises.trace_agrees_with_the_reference plot.gates_shows_every_gate",
    "S21 PyTorch's layers": "layers.constructor layers.shapes known_answers.shapes_of_two_layers torch_parity.grid",
}
"""By system: tests that would fail without it, `function` here or `module.function`, each less its "test_"."""


def test_every_system_is_named():
    gallery = (Path(__file__).parents[1] / "docs/gallery.md").read_text(encoding="utf-8")
    assert [row.split()[0] for row in TESTS] == [f"S{number}" for number in re.findall(r"^## (\d+)\.", gallery, re.M)]


@pytest.mark.parametrize("row", TESTS)
def test_named_tests_exist(row):
    for name in TESTS[row].split():
        module, _, function = name.rpartition(".")
        source = Path(__file__).with_name(f"test_{module or 'systems'}.py").read_text(encoding="utf-8")
        functions = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        assert f"test_{function}" in functions, name


T, B, I, H, V = 5, 3, 4, 6, 7  # noqa: E741
x = np.random.default_rng(0).standard_normal((T, B, I))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_gradients_of_network_and_output_layer():
    """U, W, b of the network, V, c of its output layer, over the steps that count."""
    rnn = rnnkern.RNN(I, H, dtype=np.float64, seed=0)
    random = np.random.default_rng(1)
    weight, bias = random.standard_normal((V, H)), random.standard_normal(V)
    targets, mask = random.integers(0, V, (T, B)), random.random((T, B)) < 0.6

    def loss():
        return rnnkern.linear_cross_entropy(rnn(x)[0], weight, bias, targets, mask=mask)

    y, _, tape = rnn.forward(x)
    _, output = rnnkern.linear_cross_entropy(y, weight, bias, targets, mask=mask, gradient=True)
    gradients = rnn.backward(tape, output.h).weights | {"V": output.weight, "c": output.bias}
    arrays = dict(rnn.weights) | {"V": weight, "c": bias}
    assert len(gradients) == len(arrays) == 6
    for name, array in arrays.items():
        expected = central_differences(loss, array)
        assert_close(gradients[name], expected, array.size, order=CENTRAL_DIFFERENCE, scale=1 + loss(), name=name)
        assert expected.any()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "Jordan"])
def test_both_directions(kind):
    """Weights of their own, one reads from the end, outputs beside each other."""
    sizes = (I, H, V) if kind == "Jordan" else (I, H)
    both = getattr(rnnkern, kind)(*sizes, bidirectional=True, seed=0)
    one, other = (getattr(rnnkern, kind)(*sizes, seed=0) for _ in range(2))
    one.load_state_dict({name: both.weights[name] for name in one.weights})
    other.load_state_dict({name: both.weights[name + "_reverse"] for name in other.weights})
    given = x.astype(np.float32)
    assert_same_bits(both(given)[0], np.concatenate([one(given)[0], other(given[::-1])[0][::-1]], axis=2))


def test_layers_on_top_of_each_other():
    deep = rnnkern.LSTM(I, H, num_layers=3, seed=0)
    y = x.astype(np.float32)
    expected = deep(y)[0]
    for layer in range(3):
        one = rnnkern.LSTM(y.shape[2], H)
        one.load_state_dict({name: deep.weights[name.replace("_l0", f"_l{layer}")] for name in one.weights})
        y = one(y)[0]
    assert_same_bits(y, expected)


@pytest.mark.parametrize(
    "options", [{}, {"peephole": True}, {"coupled": "i"}, {"coupled": "f"}, {"proj_size": 2}], ids=str
)
def test_lstm_of_five_gates(options):
    """As it is often drawn: input gate, forget gate, input modulation, output gate, output modulation."""
    lstm = rnnkern.LSTM(I, H, dtype=np.float64, seed=0, **options)
    w = {name[:-3]: weight for name, weight in lstm.weights.items()}
    h, c = np.zeros((B, options.get("proj_size", H))), np.zeros((B, H))
    y, (last_h, last_c) = lstm(x)
    for t in range(T):
        a = x[t] @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
        a_input, a_forget, a_candidate, a_output = np.split(a, 4, axis=1)
        peep_input, peep_forget, peep_output = w.get("weight_peephole", np.zeros((3, H)))
        input_gate, forget_gate = sigmoid(a_input + peep_input * c), sigmoid(a_forget + peep_forget * c)
        if options.get("coupled") == "i":
            input_gate = 1 - forget_gate
        if options.get("coupled") == "f":
            forget_gate = 1 - input_gate
        input_modulation = np.tanh(a_candidate)
        c = forget_gate * c + input_gate * input_modulation
        output_gate, output_modulation = sigmoid(a_output + peep_output * c), np.tanh(c)
        h = output_gate * output_modulation
        h = h @ w["weight_hr"].T if "weight_hr" in w else h
        assert_close(y[t], h, I + 2 * H, T)
    assert_close(last_h[0], h, I + 2 * H, T)
    assert_close(last_c[0], c, I + 2 * H, T)


@pytest.mark.parametrize("reset_after", [True, False])
def test_both_kinds_of_gru(reset_after):
    gru = rnnkern.GRU(I, H, reset_after=reset_after, dtype=np.float64, seed=0)
    w = {name[:-3]: np.split(weight, 3) for name, weight in gru.weights.items()}
    h = np.zeros((B, H))
    y, _ = gru(x)
    for t in range(T):
        x_r, x_z, x_n = (x[t] @ W.T + b for W, b in zip(w["weight_ih"], w["bias_ih"], strict=True))
        (R_r, R_z, R_n), (b_r, b_z, b_n) = w["weight_hh"], w["bias_hh"]
        r, z = sigmoid(x_r + h @ R_r.T + b_r), sigmoid(x_z + h @ R_z.T + b_z)
        n = np.tanh(x_n + (r * (h @ R_n.T + b_n) if reset_after else (r * h) @ R_n.T + b_n))
        h = (1 - z) * n + z * h
        assert_close(y[t], h, I + H, T)


class Tagger:
    """A network on 1-of-N words with a softmax at each step, and gradient descent."""

    def __init__(self, layer, classes):
        self.layer = layer
        self.weight = np.zeros((classes, (1 + layer.bidirectional) * layer.hidden_size), np.float32)
        self.bias = np.zeros(classes, np.float32)

    def one_hot(self, words):
        return np.eye(self.layer.input_size, dtype=np.float32)[words]

    def learn(self, words, targets, steps, rate=1.0, state=None):
        for _ in range(steps):
            y, _, tape = self.layer.forward(self.one_hot(words), state)
            loss, output = rnnkern.linear_cross_entropy(y, self.weight, self.bias, targets, gradient=True)
            gradients = self.layer.backward(tape, output.h, wrt=("weights",)).weights
            self.weight -= rate * output.weight
            self.bias -= rate * output.bias
            for name, weight in self.layer.weights.items():
                weight -= rate * gradients[name]
        return loss

    def tags(self, y):
        return (y @ self.weight.T + self.bias).argmax(axis=-1)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_language_model_reads_and_writes(kind):
    """A letter may follow another one in two ways: it takes the one before that to know. Then it goes on by itself."""
    text = np.array([0, 1, 2, 0, 1, 3] * 8)
    model = Tagger(getattr(rnnkern, kind)(4, 12, seed=0), 4)
    loss = model.learn(text[:-1, None], text[1:, None], 300)
    assert loss < 0.1  # without memory log(2) / 3 = 0.23
    stream = model.layer.freeze().stream()
    y = stream.generate(model.one_hot([0]), lambda y_t: model.one_hot(model.tags(y_t)), 13)
    written = [0, *model.tags(y[:, 0])]
    assert written in [list(text[start : start + 14]) for start in (0, 3)]


def test_the_slot_of_a_word_is_in_its_context():
    """Taipei is the destination after "arrive", the departure after "leave"; unknown words share one input."""
    words = ["arrive", "leave", "Taipei", "<other>"]
    nothing, destination, departure = range(3)
    sentences = np.array([[0, 2, 3], [1, 2, 3], [0, 3, 2], [1, 3, 2], [3, 0, 2], [3, 1, 2]]).T
    slots = np.where(sentences != 2, nothing, np.where((sentences == 0).any(0), destination, departure))
    model = Tagger(rnnkern.LSTM(len(words), 8, bidirectional=True, seed=0), 3)
    model.learn(sentences, slots, 200)
    np.testing.assert_array_equal(model.tags(model.layer(model.one_hot(sentences))[0]), slots)
    blind = Tagger(rnnkern.LSTM(len(words), 8, bidirectional=True, seed=0), 3)  # one word at a time, as without state
    blind.learn(sentences.reshape(1, -1), slots.reshape(1, -1), 200)
    alone = blind.tags(blind.layer(blind.one_hot(sentences.reshape(1, -1)))[0])
    assert (alone.reshape(slots.shape) != slots).sum() == 3


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_encoder_and_decoder(kind):
    """The decoder starts at the encoder's last state; its gradient goes back through that state."""
    encoder, decoder = (getattr(rnnkern, kind)(I, H, dtype=np.float64, seed=seed) for seed in (0, 1))
    random = np.random.default_rng(1)
    lengths, given, dy = [5, 2, 4], random.standard_normal((3, B, I)), random.standard_normal((3, B, H))

    def loss():
        _, state = encoder(x, lengths=lengths)
        return float((decoder(given, state)[0] * dy).sum())

    _, state, read = encoder.forward(x, lengths=lengths)
    _, _, written = decoder.forward(given, state)
    back = decoder.backward(written, dy)
    gradients = encoder.backward(read, dstate=back.state).weights
    for name, weight in encoder.weights.items():
        expected = central_differences(loss, weight)
        assert_close(gradients[name], expected, weight.size, order=CENTRAL_DIFFERENCE, scale=10.0, name=name)
        assert expected.any()


def test_a_linear_chain_on_both_directions():
    """A conditional random field on a bidirectional LSTM, its sum over all paths written out.

    The gradient by an emission is the marginal probability of the tag, less 1 where it is the right one.
    """
    tags, steps = 2, 4
    lstm = rnnkern.LSTM(I, tags // 2, bidirectional=True, dtype=np.float64, seed=0)
    transitions, right = np.random.default_rng(1).standard_normal((tags, tags)), (0, 1, 1, 0)
    paths = np.array(list(itertools.product(range(tags), repeat=steps)))

    def score(emissions):
        along = emissions[np.arange(steps), 0, paths].sum(axis=1)
        return along + transitions[paths[:, :-1], paths[:, 1:]].sum(axis=1)

    def loss():
        scores = score(lstm(x[:steps, :1])[0])
        return np.log(np.exp(scores).sum()) - scores[(paths == right).all(axis=1)].item()

    y, _, tape = lstm.forward(x[:steps, :1])
    probabilities = np.exp(score(y)) / np.exp(score(y)).sum()
    marginals = np.stack([probabilities @ (paths == tag) for tag in range(tags)], axis=-1)
    gradients = lstm.backward(tape, (marginals - np.eye(tags)[list(right)])[:, None])
    for name, weight in lstm.weights.items():
        expected = central_differences(loss, weight)
        assert_close(gradients.weights[name], expected, weight.size, order=CENTRAL_DIFFERENCE, scale=3.0, name=name)


def test_classification_in_pytorch():
    """LSTM(6, 32) and Linear(32, 2) on windows of 5 steps: the loss falls as with PyTorch's own layer."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    import rnnkern.torch

    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(64, 5, 6, generator=generator)
    classes = (windows[:, :, 0].sum(dim=1) > 0).long()
    losses = []
    for accelerated in (False, True):
        torch.manual_seed(0)
        model = torch.nn.ModuleDict(
            {"lstm": torch.nn.LSTM(6, 32, batch_first=True), "output": torch.nn.Linear(32, 2)}
        ).double()
        if accelerated:
            model = rnnkern.torch.accelerate(model)
            assert isinstance(model["lstm"], rnnkern.torch.LSTM)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=50, gamma=0.2)
        curve = []
        for _ in range(70):
            logits = model["output"](model["lstm"](windows.double())[0][:, -1])
            loss = torch.nn.functional.cross_entropy(logits, classes)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            curve.append(loss.item())
        assert (logits.argmax(dim=1) == classes).double().mean() > 0.95
        losses.append(curve)
    assert_close(losses[1], losses[0], 6 + 32, 70 * 5)


def test_number_of_parameters():
    lstm = rnnkern.LSTM(6, 32)
    assert lstm.num_parameters == 5120
    assert lstm.num_parameters + 2 * 32 + 2 == 5186  # with Linear(32, 2)
    for gates, kind in [(1, rnnkern.RNN), (3, rnnkern.GRU), (4, rnnkern.LSTM)]:
        assert kind(I, H).num_parameters == gates * H * (I + H + 2)


def test_gradients_vanish_or_explode():
    """In a linear RNN by the factor of its recurrent weights, each step; the c of an open LSTM passes on all of it."""
    rnn = rnnkern.RNN(1, 2, nonlinearity="linear", dtype=np.float64, seed=0)
    nothing = np.zeros((20, 1, 1))
    for factor in (0.5, 2.0):
        rnn.weights["weight_hh_l0"] = factor * np.eye(2)
        norms = np.linalg.norm(rnn.trace_gradients(nothing)["h"][:, 0], axis=1)
        np.testing.assert_array_equal(norms, norms[-1] * factor ** np.arange(19, -1, -1))
    lstm = rnnkern.LSTM(1, 2, dtype=np.float64, seed=0)
    lstm.load_state_dict({name: np.zeros(weight.shape) for name, weight in lstm.weights.items()})
    lstm.weights["bias_ih_l0"][2:4] = 1000  # the forget gate
    dc = np.ones((1, 1, 2))
    _, _, tape = lstm.forward(nothing)
    np.testing.assert_array_equal(lstm.backward(tape, dstate=(0 * dc, dc)).state[1], dc)
