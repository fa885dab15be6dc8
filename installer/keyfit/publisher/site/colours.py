"""The site's colours, and how far apart two colours are. The style sheet's variables are written from here."""

from msgspec import Struct, structs

AA_TEXT = 4.5
"""Least contrast of text with its ground (WCAG 2.2, success criterion 1.4.3)."""
AA_SHAPE = 3.0
"""Least contrast of what shows a control's border or state (WCAG 2.2, success criterion 1.4.11)."""


class Scheme(Struct, frozen=True, kw_only=True):
    """Colours of one mode, as #rrggbb. `on_accent` is text on a button."""

    ground: str
    surface: str
    text: str
    muted: str
    border: str
    accent: str
    on_accent: str
    good: str
    warn: str


LIGHT = Scheme(ground="#ffffff", surface="#f2f5f8", text="#1a2330", muted="#4b5766", border="#7f8a97",
               accent="#0a58a6", on_accent="#ffffff", good="#1a6b3c", warn="#8a4b00")
DARK = Scheme(ground="#12161c", surface="#1d242d", text="#e8ecf1", muted="#b1bac5", border="#7d8793",
              accent="#86bdf7", on_accent="#12161c", good="#7fd3a0", warn="#f0b66a")


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def style_sheet(colour: str, colour_dark: str) -> str:
    """The variables that the style sheet uses, for both modes; print is always light."""
    light = structs.replace(LIGHT, accent=colour.lower())
    dark = structs.replace(DARK, accent=colour_dark.lower())
    return (f":root {{\n{_variables(light)}}}\n"
            f"@media screen and (prefers-color-scheme: dark) {{\n:root {{\n{_variables(dark)}}}\n}}\n")


def _variables(scheme: Scheme) -> str:
    return "".join(f"  --{name.replace('_', '-')}: {value};\n" for name, value in structs.asdict(scheme).items())


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2, "relative luminance")."""
    red, green, blue = (_linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)
