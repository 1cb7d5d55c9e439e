"""Pictures show the numbers they are given, and the gradients of states are those that backward sums up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rnnkern
from harness import CELLS, Case, make_inputs
from tolerance import assert_close

pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")
import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rnnkern import plot
from rnnkern.cli.outcome import OURS

RESULTS = Path(__file__).parents[1] / "bench" / "results" / "inference.json"


# ---------------------------------------------------------------------------------------------------------------------
# Layer.trace_gradients


def one_gate(layer, trace, dh, suffix):
    """The gradient (H,) of one bias by ∂L/∂h_t alone, and which rows of which bias it is."""
    H = layer.hidden_size

    def of(name):
        return trace[name + suffix]

    if isinstance(layer, rnnkern.LSTM):  # h = o tanh(c)
        o = of("o")
        if layer.proj_size:
            dh = dh @ layer.weights["weight_hr" + (suffix or "_l0")]
        return dh * np.tanh(of("c")) * o * (1 - o), "bias_ih", slice(3 * H, 4 * H)
    if isinstance(layer, rnnkern.GRU):  # h = (1 - z) n + z h
        return dh * (1 - of("z")) * (1 - of("n") ** 2), "bias_ih", slice(2 * H, 3 * H)
    if isinstance(layer, rnnkern.Jordan):  # y = V h + c, or its softmax
        y, dy = of("y"), dh
        if layer.output == "softmax":
            dy = y * (dy - (y * dy).sum(axis=-1, keepdims=True))
        return dy, "bias_ho", slice(None)
    slope = {"tanh": 1 - of("h") ** 2, "relu": of("h") > 0, "linear": 1}[layer.nonlinearity]
    return dh * slope, "bias_ih", slice(0, H)


@pytest.mark.parametrize(
    "net", [{}, {"num_layers": 3, "bidirectional": True}, {"bidirectional": True, "batch_first": True}]
)
@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if "clip" not in cell and "activations" not in cell and "all" not in cell]
)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_gradients_of_states_make_those_of_biases(backend, cell, net):
    """A bias that reaches the state by one way: its gradient is the sum over all ∂L/∂h_t by that way."""
    case = Case(cell, lengths=True).with_options(**net)
    layer = case.layer(np.float64, backend=backend)
    inputs = make_inputs(case, layer)
    _, _, tape = layer.forward(inputs.x, inputs.state, lengths=inputs.lengths)
    biases = layer.backward(tape, inputs.dy, wrt=("weights",)).weights
    trace = layer.trace(inputs.x, inputs.state, lengths=inputs.lengths)
    found = layer.trace_gradients(inputs.x, inputs.state, lengths=inputs.lengths, dy=inputs.dy)
    assert found.keys() == {name for name in trace if name[0] == list(trace)[-1][0]}
    for key, dh in found.items():
        assert dh.shape == trace[key].shape
        suffix = key[1:]
        terms, bias, rows = one_gate(layer, trace, dh, suffix)
        expected = biases[bias + (suffix or "_l0")][rows]
        sums = case.depth + case.steps * case.batch
        assert_close(terms.sum(axis=(0, 1)), expected, sums, case.total_steps, name=key)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_states_by_splitting(cell):
    """∂L/∂h_t is what backward gives for the initial state of the rest of the sequence, and dy_t."""
    case = Case(cell)
    layer = case.layer(np.float64)
    inputs = make_inputs(case, layer)
    (found,) = layer.trace_gradients(inputs.x, inputs.state, dy=inputs.dy).values()
    for t in range(case.steps - 1):
        _, state = layer(inputs.x[: t + 1], inputs.state)
        _, _, tape = layer.forward(inputs.x[t + 1 :], state)
        rest = layer.backward(tape, inputs.dy[t + 1 :], wrt=("state",)).state
        expected = inputs.dy[t] + (rest[0] if isinstance(rest, tuple) else rest)[0]
        assert_close(found[t], expected, case.depth, case.total_steps, name=f"step {t}")
    np.testing.assert_array_equal(found[-1], inputs.dy[-1])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_of_states_by_default_are_of_the_last_outputs(bidirectional):
    layer = rnnkern.GRU(3, 4, bidirectional=bidirectional, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 2, 3), dtype=np.float32)
    lengths, dy = [5, 3], np.zeros((5, 2, 8 if bidirectional else 4), np.float32)
    dy[4, 0, :4] = dy[2, 1, :4] = dy[0, :, 4:] = 0.5  # 1 / sqrt(4)
    default = layer.trace_gradients(x, lengths=lengths)
    given = layer.trace_gradients(x, lengths=lengths, dy=dy)
    for name, dh in default.items():
        np.testing.assert_array_equal(dh, given[name])
        assert not dh[3:, 1].any()
    dy[3:, 1] = np.nan  # padding
    x[3:, 1] = np.nan
    for name, dh in layer.trace_gradients(x, lengths=lengths, dy=dy).items():
        np.testing.assert_array_equal(dh, given[name])


def test_gradients_of_states_of_one_sequence_and_of_none():
    layer = rnnkern.LSTM(3, 4, num_layers=2, dropout=0.5, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    alone, batch = layer.trace_gradients(x), layer.trace_gradients(x[:, None])
    for name in ("h_l0", "h_l1"):
        np.testing.assert_array_equal(alone[name], batch[name][:, 0])
    assert layer.trace_gradients(x[:0])["h_l0"].shape == (0, 4)


def test_gradients_of_states_check_their_arguments():
    layer, x = rnnkern.RNN(3, 4), np.zeros((5, 2, 3), np.float32)
    with pytest.raises(ValueError, match="x: "):
        layer.trace_gradients(x[..., :2])
    with pytest.raises(ValueError, match="dy: "):
        layer.trace_gradients(x, dy=np.zeros((5, 2, 3), np.float32))
    with pytest.raises(ValueError, match="lengths"):
        layer.trace_gradients(x, lengths=[5, 6])


# ---------------------------------------------------------------------------------------------------------------------
# gates


def maps(figure):
    """The array, limits and title of each heat map."""
    panels = [panel for panel in figure.axes if panel.images]
    return {panel.get_title(loc="left"): panel.images[0] for panel in panels}


def trace_of(layer, T=6, batch=()):
    x = np.random.default_rng(0).standard_normal((T, *batch, layer.input_size), dtype=np.float32)
    return layer.trace(x)


def test_gates_shows_every_gate():
    trace = trace_of(rnnkern.LSTM(3, 4, seed=0))
    found = maps(plot.gates(trace, "ab \ncd"))
    names = [title.split()[-1] for title in found]
    assert names == list("ifgoch")
    for name, image in zip(names, found.values()):
        np.testing.assert_array_equal(image.get_array(), trace[name].T)
        limits = image.get_clim()
        if name in "ifo":
            assert limits == (0, 1)
        else:  # the colour of zero is in the middle
            assert limits[1] == -limits[0] == np.abs(trace[name]).max()


def test_gates_have_the_inputs_below():
    trace = trace_of(rnnkern.RNN(3, 4, seed=0))
    (panel, _) = plot.gates(trace, "ab \ncd").axes
    assert [label.get_text() for label in panel.get_xticklabels()] == list("ab␣↵cd")
    (panel, _) = plot.gates(trace, ["to", "Taipei", "on", "May", "the", "2nd"]).axes
    assert panel.get_xticklabels()[1].get_text() == "Taipei"
    assert panel.get_xticklabels()[1].get_rotation() == 90
    (panel, _) = plot.gates(trace_of(rnnkern.RNN(3, 4, seed=0), 300), "a" * 300).axes
    assert panel.get_xlabel() == "step"  # no room


def test_gates_of_several_layers_and_sequences():
    trace = trace_of(rnnkern.GRU(3, 4, num_layers=2, bidirectional=True, seed=0), batch=(5,))
    found = maps(plot.gates(trace, sequence=3, units=[2, 0]))
    assert len(found) == 16
    np.testing.assert_array_equal(found["update gate z l1 reverse"].get_array(), trace["z_l1_reverse"][:, 3, [2, 0]].T)
    swapped = {name: array.swapaxes(0, 1) for name, array in trace.items()}
    again = maps(plot.gates(swapped, sequence=3, batch_first=True))
    np.testing.assert_array_equal(again["candidate n l0"].get_array(), trace["n_l0"][:, 3].T)


def test_gates_beyond_0_and_1_and_nan():
    """Gates of other activations have a sign; what is not a number has a colour of its own."""
    trace = {"f": np.array([[-2.0, 0.5], [np.nan, 1.0]])}
    (image,) = maps(plot.gates(trace)).values()
    assert image.get_clim() == (-2, 2)
    assert image.cmap(np.ma.masked_invalid([np.nan]))[0].tolist() != image.cmap(0.5)
    (image,) = maps(plot.gates({"h": np.zeros((3, 2))})).values()
    assert image.get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trace": {}}, "trace: "),
        ({"trace": {"h": np.zeros((0, 3))}}, "trace: "),
        ({"trace": {"h": [1.0]}}, "trace"),
        ({"trace": {"h": np.zeros((5, 3)), "c": np.zeros((6, 3))}}, "one number of steps"),
        ({"labels": "abc"}, "labels: expected one for each of the 6 steps, got 3"),
        ({"units": [4]}, r"units: expected numbers in 0\.\.3"),
        ({"units": []}, "units: "),
        ({"units": [-1]}, "units: "),
        ({"units": [0.5]}, "units: "),
        ({"sequence": 2}, "sequence: expected one of the 2, got 2"),
        ({"figure": 3}, "figure: expected a matplotlib Figure or SubFigure, got int"),
    ],
)
def test_gates_checks_its_arguments(change, message):
    arguments = {"trace": trace_of(rnnkern.RNN(3, 4), batch=(2,)), **change}
    with pytest.raises((TypeError, ValueError), match=message):
        plot.gates(**arguments)


# ---------------------------------------------------------------------------------------------------------------------
# gradient_flow


def test_gradient_flow_draws_the_norms():
    x = np.random.default_rng(0).standard_normal((7, 30, 3), dtype=np.float32)  # 30 steps of 7, batch first
    layers = {
        "RNN": rnnkern.RNN(3, 5, batch_first=True, seed=0),
        "deep GRU": rnnkern.GRU(3, 5, num_layers=2, batch_first=True, seed=0),
    }
    (axes,) = plot.gradient_flow(layers, x).axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines) == ["RNN", "deep GRU l0", "deep GRU l1"]
    assert axes.get_yscale() == "log"
    dh = layers["RNN"].trace_gradients(x)["h"]
    expected = np.median(np.linalg.norm(dh.astype(np.float64), axis=-1), axis=0)
    np.testing.assert_array_equal(lines["RNN"], expected)
    assert_close(lines["RNN"][-1].astype(np.float32), np.array(1.0), depth=5)


def test_gradient_flow_takes_inputs_by_name():
    random = np.random.default_rng(0)
    x = {name: random.standard_normal((9, size), dtype=np.float32) for name, size in (("a", 2), ("b", 3))}
    layers = {"a": rnnkern.RNN(2, 4, seed=0), "b": rnnkern.LSTM(3, 4, seed=0)}
    dy = {"a": np.ones((9, 4), np.float32), "b": np.zeros((9, 4), np.float32)}
    (axes,) = plot.gradient_flow(layers, x, dy=dy).axes
    a, b = (line.get_ydata() for line in axes.lines)
    assert a[-1] == 2
    assert np.isnan(b).all()  # a gradient of zero has no place on a logarithmic axis
    with pytest.raises(ValueError, match="dy: expected an entry for b"):
        plot.gradient_flow(layers, x, dy={"a": dy["a"]})


def test_gradient_flow_sees_what_float32_squares_lose():
    layer = rnnkern.RNN(1, 1, nonlinearity="linear")
    layer.load_state_dict({"weight_ih_l0": [[1]], "weight_hh_l0": [[0.25]], "bias_ih_l0": [0], "bias_hh_l0": [0]})
    (axes,) = plot.gradient_flow(layer, np.ones((60, 1), np.float32)).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), 0.25 ** np.arange(59.0, -1, -1))


def test_gradient_flow_checks_its_arguments():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(TypeError, match="layers: expected a layer of rnnkern, got str"):
        plot.gradient_flow("RNN", x)
    with pytest.raises(ValueError, match="layers: expected at least one"):
        plot.gradient_flow({}, x)
    with pytest.raises(TypeError, match="ax: expected matplotlib Axes, got str"):
        plot.gradient_flow(rnnkern.RNN(2, 3), x, ax="top")


# ---------------------------------------------------------------------------------------------------------------------
# text


def test_text_stands_on_its_colours():
    (axes, scale) = plot.text("ab\n$cde", np.arange(7) - 3.0, columns=3).axes
    assert scale.get_ylim() == (-3, 3)
    grid = axes.images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(grid, 9), [[-3, -2, -1], [0, 1, 2], [3, 9, 9]])
    low, high = axes.images[0].get_clim()
    assert low == -high
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places == {"a": (0, 0), "b": (1, 0), "↵": (2, 0), "$": (0, 1), "c": (1, 1), "d": (2, 1), "e": (0, 2)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", []), "characters: "),
        (("ab", [1.0]), r"values: expected one for each of the 2 characters, got \(1,\)"),
        (("a", [1.0], {"columns": 0}), "columns: "),
        (("a", [1.0], {"limit": 0.0}), "limit: "),
        (("a", [1.0], {"limit": np.nan}), "limit: "),
    ],
)
def test_text_checks_its_arguments(arguments, message):
    characters, values, *options = arguments
    with pytest.raises((TypeError, ValueError), match=message):
        plot.text(characters, values, **(options[0] if options else {}))


# ---------------------------------------------------------------------------------------------------------------------
# speed, roofline


def texts(figure):
    return [text.get_text() for panel in figure.axes for text in panel.texts]


def test_speed_shows_the_speedups_of_the_record():
    record = json.loads(RESULTS.read_text())
    figure = plot.speed(RESULTS)
    speedups = [f"{result['speedup']:.2f}×" for result in record["results"]]
    assert sorted(texts(figure)) == sorted(speedups)
    for panel in figure.axes:
        cell, *_, mean = panel.get_title(loc="left").split()
        assert mean == f"{record['geometric_means'][cell.lower()]['best']:.2f}×"
    assert record["machine"]["processor"] in figure.get_suptitle()
    assert texts(plot.speed(record)) == texts(figure)


def extent(artist, figure):
    return artist.get_window_extent(figure.canvas.get_renderer())


@pytest.mark.parametrize("draw", [plot.speed, plot.roofline])
def test_nothing_is_cut_off_or_hidden(draw):
    """One cell, a processor with a long name, large numbers: all text in the figure, all numbers beside the dots."""
    record = json.loads(RESULTS.read_text())
    record["machine"]["processor"] = "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, the long edition"
    record["results"] = [result for result in record["results"] if result["cell"] == "lstm"]
    for times in record["results"][0]["microseconds"].values():
        times |= {name: 12345 * times[name] for name in ("median", "best")}
    own = record["results"][0]["microseconds"]
    own["frozen"] |= {"median": 1.0, "best": 1.0}
    figure = draw(record)
    FigureCanvasAgg(figure).draw()
    title = extent(figure._suptitle, figure)
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.x1
    assert record["machine"]["processor"] in figure.get_suptitle().replace("\n", " ")
    if draw is plot.speed:
        (panel,) = figure.axes
        for text in panel.texts:
            assert panel.bbox.x1 <= extent(text, figure).x0
            assert extent(text, figure).x1 <= figure.bbox.x1


def test_speed_has_no_numbers_for_what_was_disturbed():
    record = json.loads(RESULTS.read_text())
    record["results"] = record["results"][:3]
    first, second, third = record["results"]
    first["microseconds"]["frozen"]["disturbed"] = "waited"
    second["microseconds"] = {}
    figure = plot.speed(record)
    assert texts(figure) == ["disturbed", "no time", f"{third['speedup']:.2f}×"]
    assert "1 of 3 rows were disturbed" in figure.get_suptitle()
    assert "no time for 1 of 3" in figure.get_suptitle()
    assert figure.axes[0].get_title(loc="left").endswith("of 1 of 3 rows")


def test_speed_without_peers():
    record = json.loads(RESULTS.read_text())
    for result in record["results"]:
        result["microseconds"] = {name: result["microseconds"][name] for name in ("rnnkern", "NumPy")}
    figure = plot.speed(record)
    assert texts(figure) == []
    assert "No other library was timed" in figure.get_suptitle()
    assert not any("mean" in panel.get_title(loc="left") for panel in figure.axes)


def test_roofline_shows_what_is_reached():
    record = json.loads(RESULTS.read_text())
    figure = plot.roofline(str(RESULTS))
    shapes = [",".join(str(result[name]) for name in "TBIH") for result in record["results"]]
    shown = texts(figure)
    assert all(any(text.startswith(shape) for text in shown) for shape in shapes)
    assert f"{record['limits'][-1]['peak'] / 1e9:.0f} GFLOP/s" in shown
    dots = {dot[1] for panel in figure.axes for c in panel.collections for dot in np.asarray(c.get_offsets())}
    for result in record["results"]:
        flops = sum(phase["flops"] for phase in result["limit"]["phases"])
        own = min(times["median"] for name, times in result["microseconds"].items() if name in OURS)
        assert min(abs(dot * own / 1e6 / flops - 1) for dot in dots) < 1e-9


def test_results_of_something_else(tmp_path):
    path = tmp_path / "a.json"
    for content in ("", "[]", "{}", '{"results": [{"cell": "lstm"}]}', '{"results": [], "settings": {}}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"a\.json: expected"):
            plot.speed(path)
    with pytest.raises(FileNotFoundError):
        plot.speed(tmp_path / "missing.json")
    record = json.loads(RESULTS.read_text())
    with pytest.raises(ValueError, match="results: expected at least one"):
        plot.speed({**record, "results": []})
    with pytest.raises(ValueError, match="bench --limit"):
        plot.roofline({**record, "limits": []})


# ---------------------------------------------------------------------------------------------------------------------
# All of them


def pictures():
    layer = rnnkern.LSTM(3, 4, seed=0)
    x = np.ones((6, 3), np.float32)
    return {
        "gates": lambda **where: plot.gates(layer.trace(x), "abcdef", **where),
        "speed": lambda **where: plot.speed(RESULTS, **where),
        "roofline": lambda **where: plot.roofline(RESULTS, **where),
        "gradient_flow": lambda **where: plot.gradient_flow(layer, x, **where),
        "text": lambda **where: plot.text("abcdef", x.sum(axis=1), **where),
    }


@pytest.mark.parametrize("name", sorted(pictures()))
def test_pictures_go_where_they_are_wanted(name, tmp_path):
    draw = pictures()[name]
    assert name in plot.__all__
    assert isinstance(draw(), Figure)
    figure = Figure(figsize=(16, 8))
    if name in ("gradient_flow", "text"):
        left, right = figure.subplots(1, 2)
        assert draw(ax=right) is figure
        assert right.has_data()
        assert not left.has_data()
        assert len(figure.axes) == 2 + (name == "text")  # and its scale
    else:
        assert draw(figure=figure) is figure
        part = Figure(layout="constrained").subfigures(1, 2)[1]
        assert draw(figure=part) is part
        assert part.axes
    path = tmp_path / "a.png"
    figure.savefig(path)
    assert path.stat().st_size > 1000


def test_nothing_global_changes():
    """Neither settings nor pyplot's list of figures, which grows until they are closed."""

    def figures():
        pyplot = sys.modules.get("matplotlib.pyplot")
        return pyplot.get_fignums() if pyplot else []

    before = dict(matplotlib.rcParams), figures()
    for draw in pictures().values():
        draw()
    assert (dict(matplotlib.rcParams), figures()) == before


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_matplotlib_is_imported_on_demand():
    done = python("import sys, rnnkern; assert 'matplotlib' not in sys.modules; print(rnnkern.plot.__all__)")
    assert done.returncode == 0, done.stderr
    assert "gradient_flow" in done.stdout


def test_without_matplotlib():
    done = python("import sys; sys.modules['matplotlib'] = None\nimport rnnkern; print('fine'); rnnkern.plot")
    assert done.stdout == "fine\n"
    assert 'pip install "rnnkern[plot]"' in done.stderr.splitlines()[-1]
