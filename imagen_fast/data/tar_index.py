"""Where the members of a tar file lie, from its headers alone.

Understands what tar programs write today: POSIX ustar and pax, and GNU with its long names. Python's own
`tarfile` finds the same members in several times the time, which matters for the millions of a data set.
"""

import os
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

BLOCK: Final = 512
# What follows an image, labels and other small members with all their headers, mostly comes in one read.
READ: Final = 8192
# Longer names and records than that are no tar file's.
LONGEST_NAME: Final = 1 << 20

REGULAR: Final = (b"0", b"\0", b"7")
LONG_NAME, PAX = b"L", b"x"
# Members that speak of the next one, or of all: those two, the long name of a link, a global pax header.
ABOUT_OTHERS: Final = (LONG_NAME, PAX, b"K", b"g")


class TarError(Exception):
    """Bytes that are no tar header, or an end in the middle of a member; the message says where."""


class Member(NamedTuple):
    """A file in a tar file: its bytes are the `size` from `offset` on; `head` may hold the first of them."""

    name: str
    offset: int
    size: int
    head: bytes


class TarFile:
    """A tar file open for reading at any place, from any number of threads.

    Raises OSError where it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.status = os.fstat(self._descriptor)

    def __del__(self) -> None:
        # Not a method to call: one thread may still read when another has no more use for the file.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Fewer bytes than `size` where the file ends. There is no position that threads share."""
        return os.pread(self._descriptor, size, offset)

    def members(self) -> Iterator[Member]:
        """The files in it, in its order; folders, links and the like are passed over.

        Raises `TarError` at the first place where the format is broken; what came before it is good. The end
        of the file is such a place where no block of zeros marks it: it was cut off, if between two members.
        """
        size = self.status.st_size
        window, start, offset = b"", 0, 0  # what was read, and from where; where the walk is
        long_name: str | None = None
        records: dict[str, str] = {}
        while offset < size:
            if not start <= offset <= start + len(window) - BLOCK:
                window, start = self.read(offset, READ), offset
            header = window[offset - start : offset - start + BLOCK]
            if header.count(0) == len(header):
                return
            kind, length = _checked(header, offset)
            body = offset + BLOCK
            head = window[body - start : body - start + min(length, BLOCK)]
            if kind in (LONG_NAME, PAX) and body + length <= size:
                if length > LONGEST_NAME:
                    raise TarError(f"the name at byte {offset} is {length} bytes long")
                text = head if len(head) == length else self.read(body, length)
                if kind == PAX:
                    records = _records(text, offset)
                else:
                    long_name = _text(text)
            elif kind in REGULAR:
                length = _number(records["size"], offset) if "size" in records else length
                name = records.get("path") or long_name or _name(header)
                yield Member(name, body, length, head)
            if kind not in ABOUT_OTHERS:
                long_name, records = None, {}
            if body + length > size:
                raise TarError(f"it ends at byte {size}, in the middle of a member")
            offset = body + -(-length // BLOCK) * BLOCK
        raise TarError(f"it ends at byte {size}, without the mark of an end")


def _checked(header: bytes, offset: int) -> tuple[bytes, int]:
    """The type of a member and its size in bytes."""
    if len(header) < BLOCK:
        raise TarError(f"it ends at byte {offset + len(header)}, in the middle of a header")
    # The sum of the bytes, its own field taken as blanks. The lower half of Adler-32 is one more, modulo a
    # prime, at a fraction of the time.
    stored = _octal(header[148:156])
    total = zlib.adler32(b"%b        %b" % (header[:148], header[156:])) & 0xFFFF
    if stored is None or (stored + 1) % 65521 != total:
        raise TarError(f"there is no tar header at byte {offset}")
    field = header[124:136]
    size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if size is None:
        raise TarError(f"the header at byte {offset} holds no size")
    return header[156:157], size


def _octal(field: bytes) -> int | None:
    digits = field.split(b"\0", 1)[0].strip(b" ") or b"0"
    # Python would take a sign and underscores, too.
    return int(digits, 8) if not digits.strip(b"01234567") else None


def _number(text: str, offset: int) -> int:
    if not text.isdecimal():
        raise TarError(f"the size in the record at byte {offset} is {text!r}")
    return int(text)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # What GNU's own format has in the place of a prefix are times.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _records(text: bytes, offset: int) -> dict[str, str]:
    """The records of a pax header: each its own length in decimal, a blank, key=value, the end of a line."""
    found: dict[str, str] = {}
    while text:
        length, _, rest = text.partition(b" ")
        if not length.isdigit() or not len(length) + 1 < int(length) <= len(text):
            raise TarError(f"the pax header before byte {offset + BLOCK} is broken")
        record, text = rest[: int(length) - len(length) - 2], text[int(length) :]
        key, _, value = record.partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return found
