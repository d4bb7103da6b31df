"""Real faults of the machine, as the libraries report them, are recognised; what only looks like them is not."""

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lorafit.errors import DataError, EnvironmentUnfitError, OutOfMemoryError, RunError
from lorafit.system.atomic import write_atomic
from lorafit.system.faults import find_fault, name_faults


def raised_by(work: Callable[[], object]) -> BaseException:
    """Return what a piece of work raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - what it is is the question
        work()
    return caught.value


def save_numpy(path: str) -> None:
    with Path(path).open("wb") as file:
        np.save(file, np.zeros(100_000))


def write_parquet(path: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": np.random.default_rng(0).random(100_000)}), path)


def save_torch(path: str) -> None:
    import torch

    torch.save({"x": torch.zeros(100_000)}, path)


def save_tokenizer(path: str) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({f"word{number}": number for number in range(10_000)}, "word0")).save(path)


def save_onnx(path: str) -> None:
    import onnx
    from onnx import helper, numpy_helper

    weights = numpy_helper.from_array(np.zeros(100_000, np.float32), "w")
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], [weights])), path)


def save_openvino(path: str) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from lorafit.inference.export.openvino import write_for_openvino

    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=100_000).astype(np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [100_000]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    write_for_openvino(model, Path(path).with_suffix(".xml"))


@pytest.mark.parametrize(
    "save",
    [
        lambda path: Path(path).write_bytes(bytes(100_000)),
        lambda path: save_file({"x": np.zeros(100_000)}, path),
        save_numpy,
        write_parquet,
        save_torch,
        save_tokenizer,
        save_onnx,
        save_openvino,
    ],
    ids=["file", "safetensors", "numpy", "parquet", "torch", "tokenizer", "onnx", "openvino"],
)
def test_a_full_disk_is_recognised_in_what_every_library_says(
    save: Callable[[str], object], small_disk: Callable[[str], Path]
) -> None:
    path = small_disk("64k") / "file"
    fault = find_fault(raised_by(lambda: save(str(path))))
    assert fault is not None
    assert str(fault).startswith(("No space is left on the disk", "A file grows beyond")), "mounted, or limited"
    assert type(fault) is EnvironmentUnfitError


def test_a_database_on_a_full_disk(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("PRAGMA max_page_count = 3")
        error = raised_by(lambda: database.execute("INSERT INTO t VALUES (zeroblob(100000))"))
    assert str(find_fault(error)).startswith("No space is left on the disk")


def test_a_file_beyond_the_limit_of_the_process(tmp_path: Path) -> None:
    assert "ulimit -f" in run_limited("FSIZE", 10_000, f"open({str(tmp_path / 'large')!r}, 'wb').write(bytes(20000))")


def test_too_many_open_files() -> None:
    said = run_limited("NOFILE", 20, "[open('/dev/null') for _ in range(30)]")
    assert said.startswith("Too many files are open at once of /dev/null. Allow more with ulimit -n")


@pytest.mark.parametrize("work", ["bytes(10**10)", "np.zeros(10**10)", "torch.zeros(10**10)"])
def test_too_little_memory(work: str) -> None:
    said = run_limited("AS", 8 * 10**9, work)
    assert said.startswith("OutOfMemoryError The memory is not enough. Close other programs")


def run_limited(limit: str, value: int, work: str) -> str:
    """Run a line in a process with a limit of its own; return what it is recognised as."""
    script = f"""
import resource, sys
import numpy as np
if "torch" in sys.argv[1]:
    import torch
from lorafit.system.faults import find_fault
resource.setrlimit(resource.RLIMIT_{limit}, ({value}, {value}))
try:
    eval(sys.argv[1])
except Exception as error:
    fault = find_fault(error)
    print(type(fault).__name__ if {limit == "AS"} else "", fault)
"""
    done = subprocess.run([sys.executable, "-c", script, work], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    fault = find_fault(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path)))
    assert f"This user may not write or read {tmp_path}" in str(fault)
    assert "LORAFIT_CACHE=FOLDER" in str(fault)


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fault = find_fault(raised_by((tmp_path / "file" / "folder").mkdir))
    assert "a part of that path is a file" in str(fault)


def test_no_folder_for_temporary_files() -> None:
    script = """
import os, tempfile
from lorafit.system.faults import find_fault
tempfile._candidate_tempdir_list = lambda: ["/nowhere"]
try:
    tempfile.mkdtemp()
except Exception as error:
    print(find_fault(error))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "No usable temporary directory" in done.stdout
    assert "TMPDIR=FOLDER" in done.stdout


@pytest.mark.parametrize(
    "message",
    [
        "could not create a primitive",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
        "malloc of size 1000 failed",
    ],
)
def test_memory_in_the_words_of_libraries(message: str) -> None:
    fault = find_fault(RuntimeError(message))
    assert isinstance(fault, OutOfMemoryError)
    assert message in str(fault)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("could not convert string to float: 'No such file'"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "runs"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        KeyError("os error"),
        RuntimeError("No such file or directory (os error 2)"),
        RunError("No space left on device"),
    ],
)
def test_other_errors_are_none(error: Exception) -> None:
    assert find_fault(error) is None


def test_the_cause_of_an_error_counts_unless_it_is_hidden() -> None:
    with pytest.raises(ValueError, match="cannot serialise") as caught:
        raise ValueError("cannot serialise") from OSError(errno.ENOSPC, "No space left on device")
    assert str(find_fault(caught.value)).startswith("No space is left")
    hidden = ValueError("something else")
    hidden.__context__, hidden.__suppress_context__ = OSError(errno.ENOSPC, "No space left on device"), True
    assert find_fault(hidden) is None


def test_foreign_names_are_disarmed() -> None:
    fault = find_fault(OSError(errno.ENOSPC, "full", "a\x1b[31m\nb"))
    assert "\x1b" not in str(fault)
    assert "\n" not in str(fault)


def test_a_block_says_how_to_go_on_and_passes_on_the_rest() -> None:
    with pytest.raises(OutOfMemoryError, match=r"Go on with X\.") as caught, name_faults("Go on with X."):
        raise MemoryError
    assert isinstance(caught.value.__cause__, MemoryError)
    with pytest.raises(DataError, match=r"^mine$"), name_faults("Go on."):
        raise DataError("mine")
    with pytest.raises(KeyError), name_faults("Go on."):
        raise KeyError(1)


@pytest.mark.parametrize("told", ["", "Two rows are kept."])
def test_what_was_kept_is_asked_when_the_fault_has_come(told: str) -> None:
    rows = [""]
    with pytest.raises(EnvironmentUnfitError) as caught, name_faults(lambda: rows[-1]):
        raise OSError(errno.ENOSPC, "full", rows.append(told))
    assert str(caught.value) == f"No space is left on the disk. Make room. {told}".rstrip()
    with pytest.raises(OSError, match="full"), name_faults(lambda: None):
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("kind", [KeyError, ValueError, TypeError, IndexError])
def test_a_value_with_the_words_of_a_fault_is_none(kind: type[Exception]) -> None:
    assert find_fault(kind("could not convert: 'No space left on device, my phone ran out of memory'")) is None


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").mkdir()
    fault = find_fault(raised_by(lambda: write_atomic(tmp_path / "best.yaml", "new")))
    assert str(fault).startswith("A file cannot be put in the place of a folder")
    assert "best.yaml" in str(fault)
