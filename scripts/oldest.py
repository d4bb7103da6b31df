"""Print the oldest versions that pyproject.toml allows of what lorafit and its extras need, one name==version a line.

`make test-oldest` installs them. What these need in turn, and the tools of the tests, are as new as they may be.
"""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_LOWEST = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[\w,.-]+\])?>=(?P<version>[\w.]+)")


def main() -> None:
    """Print them."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    for line in dict.fromkeys(line for line in lines if not line.startswith(f"{project['name']}[")):
        match = _LOWEST.match(line)
        if match is None:
            raise SystemExit(f"{line!r} names no lowest version.")
        print(f"{match['name']}{match['extras'] or ''}=={match['version']}")


if __name__ == "__main__":
    main()
