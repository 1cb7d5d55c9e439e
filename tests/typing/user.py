"""A user's program, for type checkers: what it says must pass mypy --strict and pyright; it also runs."""

from typing import Any, Optional

import numpy as np
import numpy.typing as npt

import rnnkern

Array = npt.NDArray[Any]

x = np.zeros((5, 3, 4), np.float32)
gru = rnnkern.GRU(4, 6, seed=0)
y, h = gru(x)
print(y.shape, h.shape)
y, h, tape = gru.forward(x, h, lengths=[5, 3, 1])
grads = gru.backward(tape, dy=y)
print(grads.x.sum(), grads.state.sum(), grads.weights["weight_ih_l0"].sum())
print(gru.backward(tape, y, wrt=("x",)).x.sum())
print(gru.backward(tape, y, wrt=("state", "weights")).state.sum())
nothing: None = gru.backward(tape, y, wrt=("weights",)).x
names: list[str] = ["x", "weights"]
maybe: Optional[Array] = gru.backward(tape, y, wrt=names).x

lstm = rnnkern.LSTM(4, 6, num_layers=2, bidirectional=True)
y, (h, c) = lstm(x)
y, (h, c) = lstm(x, (h, c), return_sequence=False)
y, state, tape = lstm.forward(x, (h, c))
dx, (dh, dc) = (found := lstm.backward(tape, y)).x, found.state
print(dx.sum(), dh.sum(), dc.sum())

frozen = rnnkern.LSTM(4, 6).freeze()
y, (h, c) = frozen(x)
y_t, (h, c) = frozen.step(x[0], (h, c))
stream = frozen.stream(batch_size=3)
y_t = stream.step(x[0])
h, c = stream.state
stream.state = (h, c)
print(stream.run(x).shape, stream.generate(y_t[:, :4].copy(), lambda out: out[:, :4].copy(), 3).shape)

rnn_state: Array = rnnkern.RNN(4, 6, nonlinearity="relu")(x)[1]
jordan_state: Array = rnnkern.Jordan(4, 6, 2)(x)[1]


def any_layer(layer: rnnkern.Layer, kept: rnnkern.FrozenLayer) -> rnnkern.Gradients:
    """Where the kind of layer doesn't matter nothing has to be said of its state."""
    y, _, tape = layer.forward(x)
    kept(x)
    return layer.backward(tape, y)


def of_arrays(layer: rnnkern.Layer[Array]) -> Array:
    return layer(x)[1]


print(any_layer(lstm, frozen).weights.keys(), of_arrays(gru).shape)
loss, output = rnnkern.linear_cross_entropy(y[0], np.zeros((9, 6), np.float32), None, np.zeros(3, int), gradient=True)
print(float(loss), output.weight.shape)
