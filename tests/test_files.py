"""Files of layers: what is written, where and how, and what is wrong with the ones that can't be read."""

from __future__ import annotations

import enum
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_layers import OPTIONS, make, same_layer

import rnnkern
from rnnkern import files, serialization

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(params=["unnamed", "named"])
def way(request, monkeypatch):
    """The two ways to make a new file; the second is for systems and file systems without O_TMPFILE."""
    if request.param == "named":
        monkeypatch.setattr(files, "OPEN_FILES", "/missing")
    return request.param


def described_by(path):
    with path.open("rb") as file:
        return json.loads(json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]["rnnkern"])


# What is written


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_save_and_load(kind, options, tmp_path):
    layer, path = make(kind, **options), tmp_path / "layer.safetensors"
    layer.save(path)
    for given in (path, str(path), os.fsencode(path)):
        same_layer(layer, rnnkern.load(given))
    assert list(tmp_path.iterdir()) == [path]
    assert load_file(path).keys() == set(layer.weights)


def test_all_arguments_are_written(tmp_path):
    make("GRU").save(tmp_path / "gru")
    assert described_by(tmp_path / "gru") == {
        "format": 1,
        "version": rnnkern.__version__,
        "class": "GRU",
        "arguments": {
            "input_size": 4, "hidden_size": 6, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
            "bidirectional": False, "reset_after": True, "dtype": "float32", "backend": "native", "activations": None,
            "clip": None,
        },
    }  # fmt: skip


class Name(str, enum.Enum):
    TANH = "Tanh"


class Size(enum.IntEnum):
    SIX = 6


FUNCTIONS = ((np.str_("HardSigmoid"), np.float32(0.2), np.longdouble(0.5)), Name.TANH, ["Elu", np.int64(1)])


@pytest.mark.parametrize(
    ("kind", "sizes", "options"),
    [
        ("LSTM", (np.int64(4), Size.SIX), {"activations": FUNCTIONS, "coupled": np.str_("f"), "clip": np.float16(2)}),
        ("LSTM", (4, 6, np.uint8(2)), {"dropout": np.float32(0.25), "bias": np.bool_(True), "proj_size": np.int8(2)}),
        ("GRU", (4, 6), {"reset_after": np.bool_(False), "backend": np.str_("reference"), "dtype": np.str_("float64")}),
        ("RNN", (4, 6), {"nonlinearity": np.str_("relu"), "seed": np.uint64(3), "bidirectional": np.bool_(True)}),
        ("RNN", (4, 6), {"activations": [(np.str_("Affine"), np.float64(0.5))], "batch_first": np.bool_(True)}),
        ("Jordan", (4, 6, np.int16(3)), {"output": np.str_("linear"), "num_layers": np.int32(1)}),
    ],
)
def test_scalars_of_numpy(kind, sizes, options, tmp_path):
    layer = make(kind, *sizes, **options)
    layer.save(tmp_path / "layer")
    same_layer(layer, rnnkern.load(tmp_path / "layer"))
    assert "np." not in repr(layer)


def test_a_subclass_is_written_as_the_class_of_ours(tmp_path):
    class Own(rnnkern.GRU):
        def __init__(self, *sizes):
            super().__init__(*sizes, batch_first=True, seed=0)

    layer = Own(4, 6)
    layer.save(tmp_path / "layer")
    loaded = rnnkern.load(tmp_path / "layer")
    assert type(loaded) is rnnkern.GRU
    assert loaded.batch_first
    np.testing.assert_array_equal(loaded.weights["weight_hh_l0"], layer.weights["weight_hh_l0"])


# Where and how


def test_permissions_of_a_new_file(way, tmp_path):
    umask = os.umask(0o027)
    try:
        make("GRU").save(tmp_path / "layer")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "layer").stat().st_mode) == 0o640


def test_the_umask_is_left_alone(way, tmp_path, monkeypatch):
    """It is the process's: other threads' files would come out too open."""
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("umask was changed"))
    make("GRU").save(tmp_path / "layer")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_file_keeps_its_permissions(way, mode, tmp_path):
    path = tmp_path / "layer"
    path.touch()
    path.chmod(mode)
    make("GRU").save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    same_layer(make("GRU"), rnnkern.load(path))


@pytest.mark.skipif(not ROOT, reason="only the superuser gives files away")
def test_a_file_keeps_its_owner(way, tmp_path):
    path = tmp_path / "layer"
    path.touch()
    os.chown(path, 12345, 23456)
    make("GRU").save(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_a_link_is_followed(way, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "second").symlink_to("first")
    (tmp_path / "first").symlink_to(os.path.join("there", "layer"))
    for seed in (1, 2):  # to a file that isn't there, and to one that is
        make("GRU", seed=seed).save(tmp_path / "second")
        assert (tmp_path / "first").is_symlink()
        assert (tmp_path / "second").is_symlink()
        same_layer(make("GRU", seed=seed), rnnkern.load(tmp_path / "there" / "layer"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["first", "layer", "second", "there"]


def test_a_circle_of_links(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for call in (make("GRU").save, rnnkern.load):
        with pytest.raises(OSError, match=r"'.*a'") as caught:
            call(tmp_path / "a")
        assert caught.value.errno == errno.ELOOP


def test_neither_pipes_nor_devices_nor_sockets(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/null")):
            before = path.stat()
            for call in (make("GRU").save, rnnkern.load):
                with pytest.raises(OSError, match=f"Expected a regular file.*'{path}'"):
                    call(path)
            assert path.stat().st_mode == before.st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "socket"}


@pytest.mark.parametrize("length", [1, 250, 255])
def test_names_as_long_as_the_system_has_them(way, length, tmp_path):
    path = tmp_path / ("x" * length)
    for _ in range(2):
        make("GRU").save(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["missing/layer", "missing/", "", "a/b/c", "x" * 256, "file/layer"])
def test_errors_name_what_the_user_gave(way, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(OSError, match=f": '{name}'$") as caught:
        make("GRU").save(name)
    expected = {"x" * 256: errno.ENAMETOOLONG, "file/layer": errno.ENOTDIR}.get(name, errno.ENOENT)
    assert (caught.value.errno, caught.value.filename, caught.value.filename2) == (expected, name, None)
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("path", [None, 3, 3.5, ["layer"], make("GRU")])
def test_not_a_path(path):
    for call in (make("GRU").save, rnnkern.load):
        with pytest.raises(TypeError, match="path: expected"):
            call(path)


def test_a_null_character():
    for call in (make("GRU").save, rnnkern.load):
        with pytest.raises(ValueError, match=r"path: expected .*null"):
            call("a\0b")


def test_folders(tmp_path):
    for call in (make("GRU").save, rnnkern.load):
        for path in (tmp_path, f"{tmp_path}/"):
            with pytest.raises(IsADirectoryError, match=str(tmp_path)):
                call(path)
    assert not list(tmp_path.iterdir())


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing'$"):
        rnnkern.load(tmp_path / "missing")


@pytest.mark.skipif(ROOT, reason="the superuser may write anywhere")
def test_read_only_folders_and_files(tmp_path):
    path = tmp_path / "layer"
    path.touch(0o400)
    with pytest.raises(PermissionError, match=str(path)):
        make("GRU").save(path)
    path.unlink()
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=str(path)):
            make("GRU").save(path)
    finally:
        tmp_path.chmod(0o700)


def test_into_the_current_folder_and_over_a_file(way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make("GRU").save("layer")
    make("LSTM").save("layer")
    same_layer(make("LSTM"), rnnkern.load("layer"))
    assert os.listdir() == ["layer"]


# Whole or not at all


@pytest.mark.parametrize("broken", ["fsync", "link", "replace", "fchmod"])
def test_a_write_that_fails_leaves_what_was_there(way, broken, tmp_path, monkeypatch):
    if (way, broken) == ("named", "link"):
        pytest.skip("it has its name")
    path = tmp_path / "layer"
    make("LSTM").save(path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), ".rnnkern-temporary")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        make("LSTM", seed=1).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_writer_is_not_the_files(tmp_path):
    def write_picture():
        with files.whole(tmp_path / "picture") as file:
            file.write(b"half")
            raise FileNotFoundError(errno.ENOENT, "No such file", "font")

    with pytest.raises(FileNotFoundError, match="'font'"):
        write_picture()
    assert not list(tmp_path.iterdir())


def test_savers_at_the_same_time(way, tmp_path):
    """The last one wins; at any time the file is whole."""
    path, failures = tmp_path / "layer", []
    make("GRU", seed=0).save(path)

    def work(seed):
        try:
            for _ in range(8):
                make("GRU", seed=seed).save(path)
                rnnkern.load(path)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(tmp_path.iterdir()) == [path]


KILLS = """
import os, random, signal, sys, time
import rnnkern

path = sys.argv[1]
layer = rnnkern.GRU(8, 32)

def fill(number):
    for weight in layer.weights.values():
        weight[:] = number
    return layer

random.seed(0)
fill(0).save(path)
for _ in range(40):
    child = os.fork()
    if not child:
        for number in range(10**9):
            fill(number).save(path)
    time.sleep(random.uniform(0.0005, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    values = {float(value) for weight in rnnkern.load(path).weights.values() for value in weight.flat}
    assert len(values) == 1, values
fill(1).save(path)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="without O_TMPFILE an unfinished file may be left")
def test_savers_that_are_killed(tmp_path):
    """At any moment: the file is the old one or the new one, and the next save leaves nothing of theirs there."""
    subprocess.run([sys.executable, "-c", KILLS, tmp_path / "layer"], check=True, timeout=120)
    assert os.listdir(tmp_path) == ["layer"]


def test_only_what_nobody_holds_is_removed(tmp_path):
    if not hasattr(os, "O_TMPFILE"):
        pytest.skip("there is nothing to remove")
    import fcntl

    abandoned, held, other = (tmp_path / name for name in (".rnnkern-a", ".rnnkern-b", ".rnnkernel"))
    for path in (abandoned, held, other):
        path.touch()
    os.mkfifo(tmp_path / ".rnnkern-pipe")
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        make("GRU").save(tmp_path / "layer")
    assert not abandoned.exists()
    assert held.exists()
    assert other.exists()


# What can't be read


ARRAYS = make("LSTM").state_dict()
ARGUMENTS = {"input_size": 4, "hidden_size": 6}


def metadata(**changes):
    return {"rnnkern": json.dumps({"class": "LSTM", "arguments": ARGUMENTS} | changes)}


def arguments(**changes):
    return metadata(format=1, version="0.1.0", arguments=ARGUMENTS | changes)


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        rnnkern.load(path)
    assert str(caught.value).startswith(f"path: {str(path)!r} ")
    assert len(str(caught.value)) < 2000
    return str(caught.value)


DESCRIPTIONS = {
    "no metadata": (None, "not written by rnnkern.*load_state_dict"),
    "others' metadata": ({"format": "pt"}, "not written by rnnkern.*load_state_dict"),
    "no JSON": ({"rnnkern": "not JSON"}, "broken metadata"),
    "empty": ({"rnnkern": ""}, "broken metadata"),
    "a list": ({"rnnkern": "[1, 2]"}, "broken metadata: expected an object"),
    "null": ({"rnnkern": "null"}, "broken metadata: expected an object"),
    "deep": ({"rnnkern": "[" * 100_000}, "broken metadata: nested too deeply"),
    "deep arguments": (arguments(activations=json.loads("[" * 400 + "]" * 400)), "activations: expected"),
    "twice": ({"rnnkern": '{"class": "LSTM", "class": "GRU", "arguments": {}}'}, "twice"),
    "NaN": ({"rnnkern": '{"class": "LSTM", "arguments": {"clip": NaN}}'}, "NaN is not a number"),
    "many digits": ({"rnnkern": '{"class": "LSTM", "arguments": {"clip": ' + "9" * 5000 + "}}"}, "broken metadata"),
    "beyond float64": (arguments(clip=10**400), "does not describe a layer"),
    "beyond float64 as a parameter": (arguments(activations=[["Elu", 10**400], "Tanh", "Tanh"]), "does not describe"),
    "base class": (metadata(**{"class": "Layer"}), "expected one of RNN, LSTM, GRU, Jordan"),
    "no class of ours": (metadata(**{"class": "os.system"}), "expected one of RNN, LSTM, GRU, Jordan"),
    "class of another kind": (metadata(**{"class": ["LSTM"]}), "expected one of"),
    "no class": ({"rnnkern": "{}"}, "expected one of"),
    "arguments of another kind": (metadata(arguments=[4, 6]), "expected one of"),
    "missing size": (metadata(arguments={"input_size": 4}), "hidden_size"),
    "unknown option": (arguments(colour="red"), "unexpected colour"),
    "unknown field": (metadata(layers=3), "unexpected layers"),
    "private option": (arguments(_isa="avx2"), "unexpected _isa"),
    "seed": (arguments(seed=3), "unexpected seed"),
    "size of another kind": (arguments(hidden_size="6"), "hidden_size: expected"),
    "size null": (arguments(hidden_size=None), "hidden_size: expected"),
    "size with a fraction": (arguments(hidden_size=6.5), "hidden_size: expected"),
    "other size": (arguments(hidden_size=7), "weight_ih_l0: expected shape"),
    "size of 16 TB": (arguments(hidden_size=10**6), "weight_ih_l0: expected shape"),
    "huge size": (arguments(hidden_size=10**12), "hidden_size: expected"),
    "huge depth": (arguments(num_layers=2**10), "missing weight_ih_l1"),
    "dtype of another kind": (arguments(dtype={"a": 1}), "dtype"),
    "structured dtype": (arguments(dtype="f4,f4"), "dtype"),
    "long dtype": (arguments(dtype="f" * 10**6), "dtype"),
    "other dtype": (arguments(dtype="float64"), "expected float64"),
    "odd activations": (arguments(activations={"a": []}), "activations"),
    "odd coupled": (arguments(coupled=[[]]), "coupled"),
    "odd back end": (arguments(backend=3), "backend"),
    "format of another kind": (metadata(format="1"), "broken metadata"),
    "format true": (metadata(format=True), "broken metadata"),
    "negative format": (metadata(format=-1), "broken metadata"),
    "version of another kind": (metadata(format=1, version=7), "broken metadata"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_what_describes_no_layer(name, tmp_path):
    described, message = DESCRIPTIONS[name]
    save_file(ARRAYS, tmp_path / "file", described)
    refused(tmp_path / "file", message)


def test_files_of_another_version(tmp_path):
    path = tmp_path / "file"
    save_file(ARRAYS, path, metadata())  # the first format: no number, and only what is not at its default
    same_layer(make("LSTM"), rnnkern.load(path))
    save_file(ARRAYS, path, metadata(format=1, version="7.5"))
    same_layer(make("LSTM"), rnnkern.load(path))
    here = rnnkern.__version__
    save_file(ARRAYS, path, metadata(format=2, version="7.5", layers=[]))
    refused(path, f"written by rnnkern 7.5 in format 2; this is rnnkern {here}, which reads formats up to 1: upgrade")
    save_file(ARRAYS, path, metadata(format=2))
    refused(path, r"written by rnnkern \(of no version\) in format 2; ")
    for newer in (
        metadata(format=1, version="7.5", **{"class": "Transformer"}),
        metadata(format=1, version="7.5", arguments=ARGUMENTS | {"zoneout": 0.5}),
        metadata(format=1, version="7.5", arguments=ARGUMENTS | {"backend": "gpu"}),
        metadata(format=1, version="7.5", arguments=ARGUMENTS | {"hidden_size": 7}),
    ):
        save_file(ARRAYS, path, newer)
        refused(path, f"was written by rnnkern 7.5; this is rnnkern {here}")


def test_missing_and_unexpected_arrays(tmp_path):
    path = tmp_path / "file"
    save_file({name: array for name, array in ARRAYS.items() if name != "bias_hh_l0"}, path, metadata())
    refused(path, "missing bias_hh_l0")
    save_file(ARRAYS | {"bias_hh_l1": ARRAYS["bias_hh_l0"]}, path, metadata())
    refused(path, "unexpected bias_hh_l1")
    save_file(ARRAYS | {"bias_hh_l0": ARRAYS["bias_hh_l0"][:, None]}, path, metadata())
    refused(path, "bias_hh_l0: expected shape")
    save_file(ARRAYS | {"bias_hh_l0": ARRAYS["bias_hh_l0"].astype(np.float64)}, path, metadata())
    refused(path, "bias_hh_l0: expected float32")


def write(path, header, data=b"", length=None):
    """A file in safetensors' format, or nearly."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def a_file(described=None, **changes):
    """The header of a GRU(1, 1) without biases: three numbers for weight_ih_l0, and three for weight_hh_l0."""
    options = {"input_size": 1, "hidden_size": 1, "bias": False}
    own = {"rnnkern": json.dumps({"class": "GRU", "arguments": options})} if described is None else described
    tensors = {
        "weight_ih_l0": {"dtype": "F32", "shape": [3, 1], "data_offsets": [0, 12]},
        "weight_hh_l0": {"dtype": "F32", "shape": [3, 1], "data_offsets": [12, 24]},
    }
    first = {"weight_ih_l0": tensors["weight_ih_l0"] | changes}
    return {"__metadata__": own, **tensors, **first}


def test_the_file_made_here_is_a_good_one(tmp_path):
    write(tmp_path / "file", a_file(), np.arange(6, dtype="<f4").tobytes())
    weights = rnnkern.load(tmp_path / "file").weights
    np.testing.assert_array_equal(weights["weight_ih_l0"].ravel(), [0, 1, 2])
    np.testing.assert_array_equal(weights["weight_hh_l0"].ravel(), [3, 4, 5])


ENTRIES = [
    *[
        ({"dtype": name}, f"weight_ih_l0 is {name}, expected one of F32, F64")
        for name in ("BF16", "F8_E4M3", "F4", "U8")
    ],
    ({"dtype": "F16"}, "weight_ih_l0 is F16"),
    *[({"dtype": value}, "weight_ih_l0 is") for value in (3, None, [], "", "f32")],
    ({"dtype": "F64"}, "has not as many bytes"),
    *[
        ({"shape": value}, "doesn't tell")
        for value in (3, "3", None, [3.0, 1], [-3, -1], [True, 3], [[3], 1], {}, [3] * 4)
    ],
    *[({"shape": value}, "has not as many bytes") for value in ([3, 2], [2**62, 2**62], [0], [])],
    ({"shape": [10**400, 1]}, "doesn't tell"),
    ({"shape": [3]}, "weight_ih_l0: expected shape"),
    *[({"data_offsets": value}, "doesn't tell") for value in (3, [0], [0, 12, 24], ["0", "12"], [0.0, 12.0], [-12, 0])],
    *[({"data_offsets": value}, "has not as many bytes") for value in ([12, 0], [0, 2**62])],
    *[({"data_offsets": value}, "doesn't begin where") for value in ([12, 24], [4, 16], [24, 36])],
    ({"colour": "red"}, "doesn't tell"),
]


@pytest.mark.parametrize(("changes", "message"), ENTRIES, ids=lambda value: str(value)[:40])
def test_odd_entries(changes, message, tmp_path):
    write(tmp_path / "file", a_file(**changes), bytes(24))
    refused(tmp_path / "file", message)


HEADERS = [
    (b"", "header is broken"),
    (b"{", "header is broken"),
    (b"[]", "header is broken, expected an object"),
    (b"null", "header is broken, expected an object"),
    (b"\xff\xfe", "header is broken"),
    (b'{"a": 1, "a": 1}', "twice"),
    (b'{"a":' * 50_000, "nested too deeply"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a": NaN}', "NaN"),
    (b'{"a": 1' + b"0" * 5000 + b"}", "header is broken"),
    (b'{"__metadata__": 3}', "metadata are not texts"),
    (b'{"__metadata__": {"rnnkern": {}}}', "metadata are not texts"),
    (b'{"__metadata__": null}', "metadata are not texts"),
    (b"{}", "not written by rnnkern"),
    (a_file() | {"weight_ih_l0": 3}, "doesn't tell"),
    (a_file() | {"weight_ih_l0": None}, "doesn't tell"),
]


@pytest.mark.parametrize(("header", "message"), HEADERS, ids=lambda value: str(value)[:30])
def test_odd_headers(header, message, tmp_path):
    write(tmp_path / "file", header, bytes(24))
    refused(tmp_path / "file", message)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, -25, -24, -1])
def test_cut_off(size, tmp_path):
    write(tmp_path / "file", a_file(), bytes(24))
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[:size])
    refused(tmp_path / "file", "cut off" if size < 0 and size != -25 else "not a safetensors file")


def test_something_behind_the_tensors(tmp_path):
    write(tmp_path / "file", a_file(), bytes(25))
    refused(tmp_path / "file", "is broken: it has .* bytes")


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "file"
    make("LSTM", 64, 64).save(path)
    check = serialization.tensor_file.check_tensors

    def cut(header, size):
        os.truncate(path, size - 4)
        return check(header, size)

    monkeypatch.setattr(serialization.tensor_file, "check_tensors", cut)
    refused(path, "cut off while it was read")


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"not safetensors", "it has no header"),
        (b"PK\x03\x04 archive", "PyTorch .*load_state_dict"),
        (b"\x80\x02\x8a pickle", "PyTorch.*load_state_dict"),
        (b"\x89HDF\r\n\x1a\n", "HDF5.*load_state_dict"),
        (b"\x08\x07\x12\x07pytorch", r"rnnkern\.onnx\.load"),
        (b"\xff" * 64, "it has no header"),
    ],
)
def test_files_of_others(first, message, tmp_path):
    (tmp_path / "file").write_bytes(first)
    refused(tmp_path / "file", message)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch(zipped, tmp_path):
    torch = pytest.importorskip("torch", reason="the file of this test is torch's")
    torch.save(torch.nn.LSTM(4, 6).state_dict(), tmp_path / "file", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "file", "PyTorch.*load_state_dict")


def test_nothing_is_read_of_a_file_that_is_not_ours(tmp_path):
    """Nor allocated for sizes that are only claimed. The file has a terabyte, most of it a hole."""
    path, most = tmp_path / "file", 2**40
    tensor = {"dtype": "F32", "shape": [2**38 - 2**10], "data_offsets": [0, 2**40 - 2**12]}
    for header, message in [
        ({"x": tensor}, "not written by rnnkern"),
        ({"x": tensor} | {"__metadata__": {"format": "pt"}}, "not written by rnnkern"),
        (a_file() | {"x": tensor}, "doesn't begin where"),
        ({"x": tensor} | {"__metadata__": metadata()["rnnkern"] and metadata()}, "unexpected x"),
        (b" " * 4000, "header is broken"),
    ]:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        write(path, text.ljust(2**12 - 8))
        try:
            os.truncate(path, most)
        except OSError:
            pytest.skip("the file system has no files of a terabyte")
        tracemalloc.start()
        refused(path, message)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
