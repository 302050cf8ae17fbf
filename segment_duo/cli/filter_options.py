"""The options that choose masks, for ``masks filter`` and ``measure``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from segment_duo.cli.bundles import Bundle
from segment_duo.cli.options import finite
from segment_duo.errors import UsageError
from segment_duo.lengths import parse_length
from segment_duo.prompts import parse_box

if TYPE_CHECKING:
    from segment_duo.masks.filters import MaskFilter

CHOICE_PANEL = "Which masks"


@dataclass(frozen=True)
class FilterOptions(Bundle):
    """Conditions a mask must meet."""

    min_area: Annotated[int | None, typer.Option(help="Smallest area in pixels.", rich_help_panel=CHOICE_PANEL)] = None
    max_area: Annotated[int | None, typer.Option(help="Largest area in pixels.", rich_help_panel=CHOICE_PANEL)] = None
    min_diameter: Annotated[
        str | None,
        typer.Option(help="Smallest equivalent diameter: 12 (pixels) or 50nm.", rich_help_panel=CHOICE_PANEL),
    ] = None
    max_diameter: Annotated[
        str | None, typer.Option(help="Largest equivalent diameter: 80 (pixels) or 2um.", rich_help_panel=CHOICE_PANEL)
    ] = None
    min_circularity: Annotated[
        float | None,
        typer.Option(min=0, max=1, callback=finite, help="4 pi area / perimeter^2.", rich_help_panel=CHOICE_PANEL),
    ] = None
    min_solidity: Annotated[
        float | None,
        typer.Option(min=0, max=1, callback=finite, help="Area / convex area.", rich_help_panel=CHOICE_PANEL),
    ] = None
    min_predicted_iou: Annotated[
        float | None,
        typer.Option(min=0, max=1, callback=finite, help="Lowest predicted IoU.", rich_help_panel=CHOICE_PANEL),
    ] = None
    min_stability_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, callback=finite, help="Lowest stability score.", rich_help_panel=CHOICE_PANEL),
    ] = None
    exclude_edge: Annotated[
        bool,
        typer.Option(
            "--exclude-edge",
            help="Without masks that touch the image's edge or the banner.",
            rich_help_panel=CHOICE_PANEL,
        ),
    ] = False
    inside: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1|ID",
            help="Only masks in this box, or in the mask of this id (itself left out).",
            rich_help_panel=CHOICE_PANEL,
        ),
    ] = None
    inside_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            help="Share of a mask's pixels from which it is inside (default 0.5).",
            rich_help_panel=CHOICE_PANEL,
        ),
    ] = None
    label: Annotated[str | None, typer.Option(help="Only masks with this label.", rich_help_panel=CHOICE_PANEL)] = None

    def wanted(self) -> MaskFilter:
        """The conditions; :meth:`MaskFilter.parameters` is empty when none was given.

        Raises:
            UsageError, InputError: a length, a box or an id that cannot be read.
        """
        from segment_duo.masks.filters import MaskFilter

        if self.inside is None and self.inside_share is not None:
            raise UsageError("--inside-share needs --inside")
        box = self.inside is not None and "," in self.inside
        return MaskFilter(
            min_area=self.min_area,
            max_area=self.max_area,
            min_diameter=None if self.min_diameter is None else parse_length(self.min_diameter),
            max_diameter=None if self.max_diameter is None else parse_length(self.max_diameter),
            min_circularity=self.min_circularity,
            min_solidity=self.min_solidity,
            min_predicted_iou=self.min_predicted_iou,
            min_stability_score=self.min_stability_score,
            exclude_edge=self.exclude_edge,
            inside_box=parse_box(self.inside or "", where="--inside") if box else None,
            inside_mask=_mask_id(self.inside) if self.inside is not None and not box else None,
            inside_share=0.5 if self.inside_share is None else self.inside_share,
            label=self.label,
        )


def _mask_id(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--inside takes x0,y0,x1,y1 or the id of a mask, not '{text}'") from None
