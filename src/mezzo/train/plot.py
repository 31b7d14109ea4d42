"""Curves of a run, drawn from its logs: loss, and shares that are right on training and held-out pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SHARES = ("chars", "kinds", "colours", "tokens", "exact")


def draw_curves(logs: dict[str, list[dict[str, Any]]], target: Path) -> None:
    """Draw the lines of some stages' logs, by name, beside each other into a PNG file. Raises: ImportError, OSError."""
    import matplotlib  # noqa: PLC0415 - of the extra `train`

    matplotlib.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(2, len(logs), figsize=(5 * len(logs), 7), squeeze=False)
    for column, (name, lines) in enumerate(logs.items()):
        loss, shares = axes[0][column], axes[1][column]
        loss.set_title(name)
        for kind, style in (("train", "-"), ("held_out", "o--")):
            chosen = [line for line in lines if line["kind"] == kind]
            steps = [line["step"] for line in chosen]
            loss.plot(steps, [line["loss"] for line in chosen], style, label=kind, markersize=3)
            for number, share in enumerate(share for share in _SHARES if chosen and share in chosen[0]):
                label = f"{share}, {kind.replace('_', ' ')}"
                values = [line[share] for line in chosen]
                shares.plot(steps, values, style, color=f"C{number}", label=label, markersize=3)
        loss.set_ylabel("loss")
        shares.set_ylabel("share that is right")
        shares.set_ylim(0, 1)
        shares.set_xlabel("step")
        loss.legend(fontsize=7)
        shares.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=100)
    pyplot.close(figure)
