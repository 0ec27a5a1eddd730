"""What every group was given, as a heat map of groups x options beside the cost of each group."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive.core.report.markup import format_number
from adaptive.core.report.spots import MOST, cell
from adaptive.core.report.style import INK, PAPER, SERIES, canvas, house_style
from adaptive.core.resource import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = 12  # of the heat map


@house_style
def allocation_plot(
    problem: Any,
    allocation: Any,
    *,
    resource: str | None = None,
    title: str = "loss of each option",
    names: tuple[str, str] = ("reference", "choice"),
) -> Figure:
    """What every group was given, beside what it had. Pointing at a cell tells what it is.

    On the left all options of all groups, in stronger colour where taking one would cost more
    quality; on the right each group's share of a resource, as an outline for the reference and
    filled for the choice.

    Args:
        problem: a ``ChoiceProblem`` of G groups and at most K options.
        allocation: its ``Allocation``, or [G] option indices.
        resource: for the right side; the problem's first one when left out.
        title: of the left side.
        names: of the reference and of the choice, such as ``("parent", "child")``.
    """
    choice_G = problem.check_choice(allocation)
    reference_G = problem.reference
    groups, options = problem.num_groups, problem.num_options
    resource = next(iter(problem.cost)) if resource is None else resource
    row = 0.2 if groups <= 40 else max(0.09, 8 / groups)
    figure, (left, right) = canvas(
        height=1.35 + row * groups, columns=2, sharey=True, width_ratios=[2.4, 1]
    )
    _loss_cells(left, problem)
    rows = np.arange(groups)
    size = min(36.0, 1500 * row**2)
    left.scatter(reference_G, rows, s=2.2 * size, marker="s", facecolor="none", ec=INK, lw=1.1)
    left.scatter(choice_G, rows, s=size, marker="s", color=SERIES[1], ec=PAPER, lw=0.9, zorder=3)
    shared = len({tuple(labels) for labels in problem.options}) == 1
    if shared and options <= 60:
        small = 8.5 if options <= 16 else 6.5
        left.set_xticks(range(options), problem.options[0], rotation=90, fontsize=small)
    else:
        left.set_xlabel("option")
    step = math.ceil(groups / 40)
    left.set_yticks(range(0, groups, step), problem.groups[::step], fontsize=7.5)
    left.invert_yaxis()
    left.grid(False)
    left.set_title(title)

    cost_GK = problem.cost[resource]
    reference = cost_GK[rows, reference_G]
    scale = 100 / max(float(np.nansum(reference)), 1e-300)
    right.barh(rows, reference * scale, 0.82, fill=False, ec=INK, lw=0.8, label=names[0])
    chosen = cost_GK[rows, choice_G] * scale
    right.barh(rows, chosen, 0.82, color=SERIES[1], alpha=0.85, label=names[1])
    right.tick_params(labelleft=False, left=False)
    right.grid(axis="y", visible=False)
    right.set_title(f"{resource}: {chosen.sum():.0f} %")
    right.set_xlabel(f"% of the {names[0]}'s total")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2)
    _tell(left, right, problem, choice_G, resource, names)
    return figure


def choice_text(problem: Any, choice: Any, most: int = 8) -> str:
    """A choice in a few lines: the groups of each option, those kept as they were first.

    Args:
        problem: a ``ChoiceProblem``.
        choice: its ``Allocation``, or [G] option indices.
        most: lines, at most; what is left over is counted.
    """
    choice_G = problem.check_choice(choice)
    kept = [g for g, k in enumerate(choice_G) if k == problem.reference[g]]
    changed: dict[str, list[int]] = {}
    for g, k in enumerate(choice_G):
        if k != problem.reference[g]:
            changed.setdefault(problem.options[g][k], []).append(g)
    found = sorted(changed.items(), key=lambda item: -len(item[1]))
    lines = [f"unchanged: {len(kept)} of {problem.num_groups}"]
    lines += [f"{label}: {_listed([problem.groups[g] for g in gs])}" for label, gs in found[:most]]
    if len(found) > most:
        lines.append(f"and {len(found) - most} more options")
    return "\n".join(lines)


def _listed(groups: list[str]) -> str:
    """Names of groups; those that are a word and a number as ranges, "layer 0-2, 5"."""
    split = [re.fullmatch(r"(.*?)(\d+)", name) for name in groups]
    heads = {match[1] if match else None for match in split}
    if len(heads) != 1 or None in heads:
        return ", ".join(groups)
    runs: list[list[int]] = []
    for number in sorted(int(match[2]) for match in split if match):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{heads.pop()}{text}"


def _tell(
    left: Axes,
    right: Axes,
    problem: Any,
    choice_G: np.ndarray,
    resource: str,
    names: tuple[str, str],
) -> None:
    """A text for every option, for those taken alone where there are too many, and every bar."""
    cost_GK = problem.cost[resource]
    few = int(problem.available.sum()) <= MOST
    for g, taken in enumerate(zip(problem.reference, choice_G, strict=True)):
        group = problem.groups[g]
        for k in np.flatnonzero(problem.available[g]):
            if not few and k not in taken:
                continue
            roles = [name for name, mine in zip(names, taken, strict=True) if k == mine]
            text = f"{group}: {problem.options[g][k]}" + (f" ({', '.join(roles)})" if roles else "")
            text += f"\nloss {format_number(float(problem.loss[g, k]))}"
            text += f"\n{resource} {format_quantity(float(cost_GK[g, k]), resource)}"
            cell(left, k - 0.46, k + 0.46, g - 0.44, g + 0.44, text)
        spent = [format_quantity(float(cost_GK[g, k]), resource) for k in taken]
        text = f"{group}, {resource}\n{names[0]} {spent[0]}\n{names[1]} {spent[1]}"
        cell(right, None, None, g - 0.41, g + 0.41, text)


def _loss_cells(axes: Axes, problem: Any) -> None:
    """Draws one cell an option, with an opacity that grows with the rank of its loss."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    loss_GK = np.where(problem.available, problem.loss, np.nan)
    # Ranks, not values: losses span decades, and the picture is about which option hurts more.
    order = np.sort(loss_GK[np.isfinite(loss_GK)])
    rank_GK = np.searchsorted(order, np.nan_to_num(loss_GK)) / max(1, len(order) - 1)
    # One path for each shade: thousands of single cells would make a page of megabytes.
    shade_GK = np.ceil(rank_GK * SHADES).astype(int)
    corners = np.array([[-0.46, -0.44], [0.46, -0.44], [0.46, 0.44], [-0.46, 0.44]])
    for shade in range(SHADES + 1):
        cells = np.argwhere(problem.available & (shade_GK == shade))[:, ::-1]
        if len(cells):
            squares = cells[:, None, :] + corners
            path = Path.make_compound_path_from_polys(squares)
            opacity = 0.04 + 0.8 * shade / SHADES
            axes.add_patch(PathPatch(path, color=SERIES[0], alpha=opacity, lw=0))
    axes.set_xlim(-0.6, problem.num_options - 0.4)
    axes.set_ylim(-0.6, problem.num_groups - 0.4)
