"""What the pages of all tasks are put together with."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from lorafit.errors import UserInputError
from lorafit.reports.drawing import Plot
from lorafit.reports.results import render_plot
from lorafit.system.atomic import describe_obstacle

__all__ = ["check_places", "render_sections", "show_plots"]


def check_places(path: Path, folder: Path | None) -> None:
    """Make sure, before any work is done, that the report and the figures can be written.

    Args:
        path: The report's file.
        folder: Where the figures go, or None.

    Raises:
        UserInputError: One of them cannot.
    """
    if path.is_dir():
        raise UserInputError(
            f"{path} is a folder; --output takes a file for the report, for example {path}/report.html"
        )
    for place in (path, *([folder / "figure.svg"] if folder is not None else [])):
        if (obstacle := describe_obstacle(place)) is not None:
            raise UserInputError(f"{place.name} cannot be written: {obstacle}. Choose another place.")


def show_plots(plots: Mapping[str, Plot], *names: str) -> Iterator[str]:
    """Render those of the named plots that there are, side by side where there is room.

    Args:
        plots: By name.
        *names: Which of them, in order.

    Yields:
        HTML.
    """
    found = [plots[name] for name in names if name in plots]
    if found:
        yield '<div class="grid">'
        for plot in found:
            yield from render_plot(plot)
        yield "</div>"


def render_sections(sections: Mapping[str, str]) -> Iterator[str]:
    """Render the sections that hold something, with links to them above.

    Args:
        sections: HTML by heading.

    Yields:
        HTML.
    """
    names = {heading: heading.lower().replace(" ", "-") for heading, body in sections.items() if body}
    links = (f'<li><a href="#{name}">{escape(heading)}</a></li>' for heading, name in names.items())
    yield f'<nav aria-label="On this page"><ul>{"".join(links)}</ul></nav>'
    for heading, name in names.items():
        yield f'<section id="{name}" aria-labelledby="{name}-heading"><h2 id="{name}-heading">{escape(heading)}</h2>'
        yield sections[heading]
        yield "</section>"
