"""Paragraphs and numbers for a terminal."""

import textwrap

WIDTH = 100


def prose(text: str, *, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def entry(name: str, text: str) -> str:
    return prose(f"{name:10}{text}", indent=" " * 10)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
