"""Write requirements/train.lock, dev.lock and docs.lock: the exact versions behind `make demo`, `test` and `docs`.

Run it through `make lock`. It asks pip how it would resolve pyproject.toml's dependencies and writes name==version and
nothing else: no hashes, no addresses, no paths. Versions that are locked already stay as long as they satisfy
pyproject.toml; `make lock LOCK_FLAGS=--upgrade` takes the newest instead. Arguments it does not know go to pip.

torch must resolve to its CPU build, so that no GPU library is locked. Where pip takes another one on Linux, run
`make lock PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ("train", "report")
"""The extras that `make demo` needs."""

FOLDER = ROOT / "requirements"
HEADER = "# Written by `make lock` from pyproject.toml; do not edit.\n"
GPU_PREFIXES = ("nvidia-", "cuda-", "triton")


def resolve(requirements: list[str], constraints: list[str], pip_flags: list[str]) -> list[str]:
    """Return `name==version` of everything that pip would install into an empty environment, sorted by name."""
    with tempfile.TemporaryDirectory() as folder:
        report, constraint_file = Path(folder, "report.json"), Path(folder, "constraints.txt")
        constraint_file.write_text("\n".join(constraints), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), "--constraint", str(constraint_file), *pip_flags, *requirements]
        subprocess.run(command, check=True)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    versions = {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in installs}
    if gpu := [name for name in versions if name.startswith(GPU_PREFIXES)]:
        raise SystemExit(f"torch resolved to a GPU build, which needs {', '.join(gpu[:3])}, …. {__doc__}")
    return [f"{name}=={version.partition('+')[0]}" for name, version in sorted(versions.items())]


def read_lock(path: Path) -> list[str]:
    """Return the `name==version` lines of a lock file; none if it does not exist."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in lines if "==" in line]


def main() -> None:
    """Resolve all sets and write their files."""
    parser = argparse.ArgumentParser(description="Write the lock files.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions, whatever is locked now")
    arguments, pip_flags = parser.parse_known_args()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    extras = project["optional-dependencies"]
    own = f"{project['name']}["
    train = [*project["dependencies"], *(line for name in DEMO for line in extras[name] if not line.startswith(own))]
    others = [line for name in extras if name not in DEMO for line in extras[name] if not line.startswith(own)]
    groups = settings["dependency-groups"]
    sets = {"train": train, "dev": groups["dev"] + others, "docs": groups["docs"]}
    locked = [] if arguments.upgrade else [line for name in sets for line in read_lock(FOLDER / f"{name}.lock")]

    header, wanted, below = HEADER, list[str](), list[str]()
    for name, more in sets.items():  # each builds on those before it
        wanted += more
        lines = [line for line in resolve(wanted, locked + below, pip_flags) if line not in below]
        (FOLDER / f"{name}.lock").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
        sys.stdout.write(f"{len(lines)} packages in {name}.lock\n")
        header, below = f"{HEADER}-r {name}.lock\n", below + lines


if __name__ == "__main__":
    main()
