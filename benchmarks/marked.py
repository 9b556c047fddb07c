"""Tables in the documentation that are written anew by what measured them, between two marks."""


def replaced(text: str, name: str, table: str) -> str:
    """The text with another table between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.

    Raises:
        ValueError: there is not one of each, in this order.
    """
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended or text.count(begin) + text.count(end) > 2:
        raise ValueError(f"the page needs one {begin.strip()} on a line of its own, and behind it one {end}: put them there")
    return before + begin + table + end + after
