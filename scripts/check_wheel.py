"""Check the package as a user gets it: sdist and wheel, installed where there is no checkout, on every Python there is.

`make test-wheel` runs it. It builds both and checks them (twine, check-wheel-contents), builds the wheel from the sdist
as well and compares the two. Then, for each Python that it finds, it installs the wheel with `[train]` into an empty
environment, the locked versions as constraints, follows what `lorafit demo` says is missing, trains a few steps,
predicts and imports every public name, in an empty folder. Arguments that it does not know go to pip.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "train.lock"
PYTHONS = ("python3.11", "python3.12", "python3.13")
SHORT = ("training.max_steps=20", "evaluation.before=false", "evaluation.baselines=false", "training.blend=off")
IMPORT_ALL = "import lorafit; print(len([getattr(lorafit, name) for name in lorafit.__all__]), 'public names')"


def main() -> None:
    """Build, check and try out; the first fault ends it."""
    parser = argparse.ArgumentParser(description="Check the package as a user gets it.")
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="NAME", help="Pythons on the path, or files")
    arguments, pip_flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="lorafit-wheel-") as name:
        folder = Path(name)
        wheel = build(folder)
        for python in arguments.python:
            if is_there(python):
                try_out(wheel, python, folder / f"with-{Path(python).name}", pip_flags)
                shutil.rmtree(folder / f"with-{Path(python).name}")  # gigabytes
            else:
                say(f"{python}: not found, so not tried")


def build(folder: Path) -> Path:
    """Build and check sdist and wheel; return the wheel."""
    say("building sdist and wheel")
    run([sys.executable, "-m", "build", "--sdist", "--wheel", "--outdir", str(folder / "dist"), str(ROOT)])
    (sdist,), (wheel,) = ((folder / "dist").glob(pattern) for pattern in ("*.tar.gz", "*.whl"))
    run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)])
    run([sys.executable, "-m", "check_wheel_contents", str(wheel)])
    say("building the wheel from the sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "again"), str(source)])
    (again,) = (folder / "again").iterdir()
    files, others = read_wheel(wheel), read_wheel(again)
    if unlike := sorted(name for name in files.keys() | others.keys() if files.get(name) != others.get(name)):
        raise SystemExit(f"From the sdist these files of the wheel are others: {', '.join(unlike)}")
    say(f"{wheel.name}: {len(files)} files, the same from the sdist")
    return wheel


def read_wheel(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel by their names."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def is_there(python: str) -> bool:
    """Tell whether a Python is on the path and starts; a version manager leaves names of some that do not."""
    return shutil.which(python) is not None and not subprocess.run([python, "-V"], check=False).returncode


def try_out(wheel: Path, python: str, folder: Path, pip_flags: list[str]) -> None:
    """Install the wheel into an empty environment, and do there what a new user does."""
    say(f"{python}: installing {wheel.name}[train]")
    environment, place = folder / "environment", folder / "place"
    place.mkdir(parents=True)
    run([python, "-m", "venv", str(environment)])
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "LORAFIT_CACHE": str(folder / "cache")}

    def call(*words: str, code: int = 0) -> str:
        return run([str(programs / words[0]), *words[1:]], code=code, cwd=place, env=variables)

    call("pip", "install", "-qq", "--no-input", "-c", str(LOCK), *pip_flags, f"{wheel}[train]")
    call("lorafit", "--help")
    told = call("lorafit", "demo", "-q", code=3)
    (line,) = re.findall(r"pip install --no-deps --require-hashes -r .*", told)
    say(f"{python}: {line}")
    call(*shlex.split(line), "-qq", *pip_flags)
    call("lorafit", "doctor")
    say(f"{python}: lorafit demo, 20 steps")
    call("lorafit", "demo", "-q", "-o", "run", *(word for change in SHORT for word in ("--set", change)))
    sys.stdout.write(call("lorafit", "predict", "run", "A gem of a film.", "Dull from beginning to end."))
    sys.stdout.write(call("python", "-W", "error", "-c", IMPORT_ALL))
    say(f"{python}: it works")


def run(command: list[str], *, code: int = 0, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it said; end with that where its exit code is another."""
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != code:
        raise SystemExit(f"{done.stdout}\n{shlex.join(command)} ended with {done.returncode}, not {code}.")
    return done.stdout


def say(line: str) -> None:
    """Print a line at once."""
    print(f"==> {line}", flush=True)


if __name__ == "__main__":
    main()
