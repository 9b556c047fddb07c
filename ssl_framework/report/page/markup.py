"""HTML and SVG from Python values: what is not `Html` already is escaped, so a name can never become markup."""

import html
import re
from collections.abc import Iterable

# What HTML forbids (control characters), and what UTF-8 cannot write (halves of surrogate pairs, from odd file names).
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_EMPTY = frozenset({"meta", "img", "br", "link", "input"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Content = str | int | float | None


def escape(text: Content) -> Html:
    """Text as markup that shows it, in content and in quoted attributes alike; `Html` stays as it is."""
    if isinstance(text, Html):
        return text
    if text is None:
        return Html("")
    plain = number(text) if isinstance(text, float) else str(text)
    return Html(html.escape(_FORBIDDEN.sub("\ufffd", plain)))


def tag(name: str, /, *content: Content, **attributes: Content) -> Html:
    """One element.

    Args:
        name: of the element.
        content: text, which is escaped, or `Html`; None is nothing.
        attributes: ``class_`` becomes ``class``, ``data_tip`` becomes ``data-tip``; None and False leave the attribute
            out, True writes its name alone.
    """
    words = [name]
    for attribute, value in attributes.items():
        if value is None or value is False:
            continue
        key = attribute.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(value)}"')
    opened = f"<{' '.join(words)}>"
    return Html(opened if name in _EMPTY else f"{opened}{join(content)}</{name}>")


def join(parts: Iterable[Content], between: str = "") -> Html:
    """Parts one after the other, each escaped unless it is `Html`."""
    return Html(escape(between).join(escape(part) for part in parts))


def number(value: float) -> str:
    """A coordinate: a tenth of a pixel is enough, and a page of a thousand points stays small."""
    return f"{value:.1f}".removesuffix(".0")
