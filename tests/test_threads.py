"""Thread counts, callers at the same time, nested teams, other users of OpenMP in the process, and fork.

What could hang runs in a process of its own with a time limit.
"""

from __future__ import annotations

import contextvars
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rnnkern
from rnnkern import _core

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at libgomp and /proc")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture(autouse=True)
def _restore_threads():
    before = rnnkern.get_num_threads()
    yield
    rnnkern.set_num_threads(before)


def layer_and_input(batch=8, hidden=128, steps=20, seed=0):
    layer = rnnkern.LSTM(hidden, hidden, seed=seed)
    return layer, np.random.default_rng(seed).standard_normal((steps, batch, hidden), dtype=np.float32)


@linux
@pytest.mark.skipif(CORES < 2, reason="two processors")
def test_teams_measure_what_a_barrier_costs():
    """Now and then; two measurements that follow one another are hardly ever disturbed both."""
    layer, x = layer_and_input(batch=32, steps=100)  # long enough to wake a team for
    seen = set()
    rnnkern.set_num_threads(2)
    for _ in range(20):
        layer(x)
        seen.add(_core.barrier_seconds())
        time.sleep(0.01)
    assert len(seen) > 1
    assert all(seconds > 0 for seconds in seen)
    assert min(seen) < 5e-6


PRELUDE = """
import os, sys
import numpy as np
import rnnkern
layer = rnnkern.LSTM(64, 128, seed=0)
x = np.random.default_rng(0).standard_normal((20, 8, 64), dtype=np.float32)

def run(*_):
    y, state, tape = layer.forward(x)
    return y, layer.backward(tape, y).weights["weight_hh_l0"]

def same(a, b):
    return all(np.array_equal(u, v) for u, v in zip(a, b))
"""


def in_process(code, timeout=60, before="", **environment):
    """What a new Python prints that runs PRELUDE and `code`; fails when it fails or takes too long."""
    program = textwrap.dedent(before) + PRELUDE + textwrap.dedent(code)
    env = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")} | environment
    done = subprocess.run([sys.executable, "-c", program], env=env, timeout=timeout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


# Thread counts


def test_set_num_threads():
    rnnkern.set_num_threads(3)
    assert rnnkern.get_num_threads() == 3


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_wrong_count_changes_nothing(count, error):
    before = rnnkern.get_num_threads()
    with pytest.raises(error):
        rnnkern.set_num_threads(count)
    with pytest.raises(error), rnnkern.num_threads(count):
        pass
    assert rnnkern.get_num_threads() == before


def test_the_context_manager_nests_and_restores():
    rnnkern.set_num_threads(2)
    with rnnkern.num_threads(1):
        assert rnnkern.get_num_threads() == 1
        with rnnkern.num_threads(4):
            assert rnnkern.get_num_threads() == 4
        assert rnnkern.get_num_threads() == 1
    with pytest.raises(KeyError), rnnkern.num_threads(1):
        raise KeyError
    assert rnnkern.get_num_threads() == 2


def test_the_context_manager_is_of_this_context_only():
    rnnkern.set_num_threads(2)
    with rnnkern.num_threads(1), ThreadPoolExecutor(1) as pool:
        assert pool.submit(rnnkern.get_num_threads).result() == 2
        context = contextvars.copy_context()
        assert pool.submit(context.run, rnnkern.get_num_threads).result() == 1


def test_set_num_threads_is_of_the_whole_process():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(rnnkern.set_num_threads, 3).result()
    assert rnnkern.get_num_threads() == 3


@pytest.mark.parametrize("count", [1, 3])
def test_omp_num_threads_is_honoured(count):
    assert in_process("print(rnnkern.get_num_threads())", OMP_NUM_THREADS=str(count)) == str(count)


def test_without_omp_num_threads_it_is_the_cores():
    assert in_process("print(rnnkern.get_num_threads())") in {str(CORES), "1"}  # 1 without OpenMP


# Processors

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:27 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 23 0:28 / /a rw - cgroup c rw,cpuset\n"
)


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "quota"),
    [
        (V2, "0::/\n", {}, float("inf")),
        (V2, "0::/\n", {"": "max 100000"}, float("inf")),
        (V2, "0::/\n", {"": "150000 100000"}, 1.5),
        (V2, "0::/a/b\n", {"/a/b": "400000 100000", "/a": "200000 100000"}, 2),  # the one around it has less
        (V2, "0::/a/b\n", {"/a/b": "50000 100000", "/a": "max 100000"}, 0.5),
        (V2, "0::/../a\n", {"": "300000 100000"}, 3),  # outside of what can be seen
        (V2, "0::/gone\n", {"/a": "300000 100000"}, float("inf")),
        (V2, "", {"": "200000 100000"}, 2),
        (V2, "0::/\n", {"": "nonsense"}, float("inf")),
        (V1.format(root="/"), "4:cpu,cpuacct:/a\n3:cpuset:/\n", {"/a": (250000, 100000)}, 2.5),
        (V1.format(root="/"), "4:cpu,cpuacct:/a\n", {"/a": (-1, 100000)}, float("inf")),
        (V1.format(root="/docker/x"), "4:cpuacct,cpu:/docker/x\n", {"": (100000, 50000)}, 2),
        (V1.format(root="/docker/x"), "4:cpuacct,cpu:/docker/x/y\n", {"/y": (100000, 100000)}, 1),
        (V1.format(root="/") + V2, "4:cpu:/a\n0::/b\n", {"/a": (400000, 100000), "/b": "100000 100000"}, 1),
        ("", "", {}, float("inf")),
    ],
)
def test_the_quota_of_the_control_groups(tmp_path, mounts, groups, files, quota):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + mounts)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for group, content in files.items():
        base = "sys/fs/cgroup" if isinstance(content, str) else "sys/fs/cgroup/cpu,cpuacct"
        folder = tmp_path / (base + group)
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            (folder / "cpu.max").write_text(content + "\n")
        else:
            (folder / "cpu.cfs_quota_us").write_text(f"{content[0]}\n")
            (folder / "cpu.cfs_period_us").write_text(f"{content[1]}\n")
    assert _core.cpu_quota(str(tmp_path)) == quota


ACTIVE = """
rnnkern.set_num_threads(1)
expected, before = run(), len(os.listdir("/proc/self/task"))
def started(threads):
    rnnkern.set_num_threads(threads)
    assert same(run(), expected)
    assert rnnkern.get_num_threads() == threads
    return len(os.listdir("/proc/self/task")) - before
"""


@linux
@pytest.mark.parametrize("threads", [2, 8, 64])
def test_there_are_never_more_threads_than_processors(threads):
    code = """
    import time
    one = min(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {one})
    time.sleep(0.05)
    assert started(%d) == 0  # of which the affinity was set after the import
    os.sched_setaffinity(0, allowed)
    time.sleep(0.05)
    assert started(%d) <= len(allowed) - 1
    """
    in_process(ACTIVE + textwrap.dedent(code) % (threads, threads))


@pytest.mark.parametrize("batch", [1, 5, 32])
def test_results_do_not_depend_on_the_count(batch):
    layer, x = layer_and_input(batch)
    results = []
    for count in (1, 2, 3, 8):
        with rnnkern.num_threads(count):
            y, state, tape = layer.forward(x)
            grads = layer.backward(tape, y, state)
            results.append([y, *state, grads.x, *grads.state, *grads.weights.values()])
    for other in results[1:]:
        for expected, actual in zip(results[0], other):
            np.testing.assert_array_equal(actual, expected)


# Callers at the same time


def test_the_gil_is_released():
    layer, x = layer_and_input(batch=16, hidden=256, steps=100)
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(1e-4)

    thread = threading.Thread(target=tick)
    with rnnkern.num_threads(1):
        layer(x)
        thread.start()
        start = time.perf_counter()
        layer(x)
        end = time.perf_counter()
        done.set()
    thread.join()
    assert sum(start < tick < end for tick in ticks) >= 3


def test_callers_at_the_same_time_get_their_own_results():
    layer, _ = layer_and_input()
    inputs = [layer_and_input(batch, seed=batch)[1] for batch in range(1, 9)]

    def work(x):
        y, state, tape = layer.forward(x)
        return [y, *state, layer.backward(tape, y).weights["weight_ih_l0"]]

    expected = [work(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for ours, theirs in zip(expected, pool.map(work, inputs)):
                for a, b in zip(ours, theirs):
                    np.testing.assert_array_equal(a, b)


def test_a_frozen_layer_serves_callers_at_the_same_time():
    layer, x = layer_and_input()
    frozen = layer.freeze()
    expected = frozen(x)[0]
    with ThreadPoolExecutor(8) as pool:
        for y, _ in pool.map(frozen, [x] * 64):
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("batch", "hidden"), [(1, 256), (8, 128)])
def test_eight_callers_take_no_longer_than_one_after_the_other(batch, hidden):
    layer, x = layer_and_input(batch, hidden)
    frozen, calls = layer.freeze(), 20

    def work(_):
        for _ in range(calls):
            frozen(x)

    def seconds(run):
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    with rnnkern.num_threads(2), ThreadPoolExecutor(8) as pool:
        contexts = [contextvars.copy_context() for _ in range(8)]
        together = lambda: list(pool.map(lambda context: context.run(work, None), contexts))  # noqa: E731
        together()
        ratios = [seconds(together) / seconds(lambda: [work(None) for _ in range(8)]) for _ in range(5)]
    assert sorted(ratios)[2] <= 1.5, ratios


# No threads to be had

LIMITS = {
    "no more threads": """
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
""",
    "no memory for another stack": "limit_memory(4 << 20)",
    "memory for three stacks": "limit_memory((3 * 8 + 4) << 20)",
}


@linux
@pytest.mark.parametrize("limit", sorted(LIMITS))
def test_where_no_thread_can_be_had_fewer_compute(limit):
    code = """
    import resource
    def limit_memory(more):
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

    rnnkern._core.set_processors(8)
    for _ in range(3):
        run()  # its memory is there
    """
    calls = """
    for threads in (2, 8, 4, 8):
        print(started(threads))
    """
    found = in_process(ACTIVE + textwrap.dedent(code) + LIMITS[limit] + textwrap.dedent(calls)).split()
    assert len(found) == 4
    assert all(int(count) <= (3 if "three" in limit else 0) for count in found)


# Other teams in the process

NESTED = """
import ctypes
lock, results = __import__("threading").Lock(), []
gomp = ctypes.CDLL("libgomp.so.1")
expected = run()

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def body(_):
    result = run()
    with lock:
        results.append(result)

for _ in range(5):
    gomp.GOMP_parallel(body, None, 3, 0)
assert len(results) % 5 == 0 and results and all(same(expected, result) for result in results)
print(len(results) // 5)
"""


@linux
@pytest.mark.parametrize(
    ("environment", "team"),
    [({}, 3), ({"OMP_MAX_ACTIVE_LEVELS": "2"}, 3), ({"OMP_THREAD_LIMIT": "1"}, 1), ({"OMP_THREAD_LIMIT": "2"}, 2)],
)
def test_calls_from_inside_another_parallel_region(environment, team):
    assert in_process(NESTED, OMP_NUM_THREADS="4", OMP_DYNAMIC="false", **environment) == str(team)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_thread_limit(limit):
    code = "with rnnkern.num_threads(1): alone = run()\nwith rnnkern.num_threads(4): assert same(alone, run())"
    in_process(code, OMP_THREAD_LIMIT=str(limit))


# torch in the same process


def needs_torch():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("could not import 'torch'")


TORCH = """
import torch
torch.set_num_threads(2)
run_torch = lambda: torch.ones(500, 500) @ torch.ones(500, 500) + torch.ones(3000, 3000).exp().sum()
run_torch()
"""
ONE_POOL = """
run()
run_torch()
pools = {os.path.realpath(line.split()[-1]) for line in open("/proc/self/maps") if "libgomp" in line}
print(len(pools))
"""


@linux
@pytest.mark.parametrize("first", ["torch", "rnnkern"])
def test_one_pool_serves_torch_and_us(first):
    needs_torch()
    if rnnkern._core.openmp_runtime() != "libgomp":
        pytest.skip("not built with libgomp")
    before, after = (TORCH, "") if first == "torch" else ("", TORCH)
    assert in_process("run()\n" + after + ONE_POOL, before=before) == "1"


# fork

FORK = """
def child_works(fork=os.fork):
    expected = run()
    sys.stdout.flush()
    pid = fork()
    if pid == 0:
        ok = rnnkern.get_num_threads() == 1 and same(expected, run())
        rnnkern.set_num_threads(2)
        ok = ok and same(expected, run())
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert same(expected, run())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_works_after_our_threads():
    in_process(FORK + "rnnkern.set_num_threads(2)\nchild_works()\nchild_works()")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize("first", ["torch", "rnnkern"])
def test_a_forked_child_works_after_torch_threads(first):
    needs_torch()
    before, after = (TORCH, "") if first == "torch" else ("", TORCH)
    in_process(FORK + after + "rnnkern.set_num_threads(2)\nrun_torch()\nchild_works()", before=before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_forked_while_others_compute_works():
    code = """
    import threading
    rnnkern.set_num_threads(2)
    stop = threading.Event()
    def compute():
        while not stop.is_set():
            run()
    others = [threading.Thread(target=compute) for _ in range(2)]
    for other in others:
        other.start()
    for _ in range(5):
        child_works()
    stop.set()
    """
    in_process(FORK + textwrap.dedent(code))


def test_multiprocessing_workers_by_fork():
    code = """
    import multiprocessing
    expected = run()
    if "fork" in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert all(same(expected, result) for result in pool.map(run, range(4)))
    """
    in_process(code)


# Idling


@linux
def test_after_a_call_that_woke_threads_they_may_run_where_they_could_before():
    code = """
    import contextlib, threading, time
    rnnkern.set_num_threads(2)
    layer, x = rnnkern.LSTM(256, 256, seed=0), np.ones((50, 1, 256), np.float32)
    expected = run()

    def allowed():
        found = {}
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                found[thread] = os.sched_getaffinity(int(thread))
        return found

    processors = os.sched_getaffinity(0)

    for those in processors, {min(processors)}, {max(processors)}:
        for thread in set(allowed()) - {str(os.getpid())}:
            os.sched_setaffinity(int(thread), those)
        before = allowed()
        for _ in range(5):
            time.sleep(0.01)
            assert same(run(), expected)
            assert allowed() == before

    for thread in allowed():
        os.sched_setaffinity(int(thread), processors)

    def call_after_pauses(pause):
        for _ in range(10):
            time.sleep(pause)
            assert same(run(), expected)

    callers = [threading.Thread(target=call_after_pauses, args=(0.002 * (i + 1),)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(found == processors for found in allowed().values())
    """
    in_process(code)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 8])
def test_a_call_after_idling_costs_little_more(batch):
    layer, x = layer_and_input(batch, hidden=64, steps=10)
    frozen = layer.freeze()

    def microseconds():
        start = time.perf_counter()
        frozen(x)
        return 1e6 * (time.perf_counter() - start)

    hot = np.median([microseconds() for _ in range(200)])
    cold = []
    for _ in range(40):
        time.sleep(0.05)
        cold.append(microseconds())
    assert np.median(cold) - hot <= 500
