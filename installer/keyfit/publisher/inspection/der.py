"""Distinguished Encoding Rules, as far as signatures need them (ITU-T X.690, clauses 8 and 10).

Definite lengths only: DER has no others. Nothing recurses, so nesting costs nothing.
"""

from msgspec import Struct

from keyfit.publisher.inspection.source import Malformed

SEQUENCE, SET, OCTET_STRING, OID, INTEGER, NULL = 0x30, 0x31, 0x04, 0x06, 0x02, 0x05
UTC_TIME, GENERALIZED_TIME, BMP_STRING = 0x17, 0x18, 0x1E
CONTEXT_0, CONTEXT_1 = 0xA0, 0xA1
MAX_CHILDREN = 200_000


class Node(Struct, frozen=True):
    """One value: its identifier octet, the octets of its content, and all its octets with identifier and length."""

    tag: int
    content: bytes
    raw: bytes

    def children(self) -> list["Node"]:
        """The values in a constructed value.

        Raises:
            Malformed: the content is not a row of values.
        """
        nodes: list[Node] = []
        position = 0
        while position < len(self.content):
            if len(nodes) >= MAX_CHILDREN:
                raise Malformed(f"expected at most {MAX_CHILDREN} values in one, came more")
            node = parse(self.content, position)
            nodes.append(node)
            position += len(node.raw)
        return nodes

    def expect(self, tag: int, what: str) -> "Node":
        """This node, if it has the tag.

        Raises:
            Malformed: it has another.
        """
        if self.tag != tag:
            raise Malformed(f"expected {what} with the tag 0x{tag:02X}, came 0x{self.tag:02X}")
        return self


def parse(data: bytes, position: int = 0) -> Node:
    """The value that begins at `position`; what follows it is not looked at.

    Raises:
        Malformed: it is no value, or it ends after the data.
    """
    if position + 2 > len(data):
        raise Malformed("expected a DER value, the data ends")
    tag, length, start = data[position], data[position + 1], position + 2
    if tag & 0x1F == 0x1F:
        raise Malformed("expected a DER tag below 31")
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > len(data):
            raise Malformed("expected a definite DER length of at most four octets")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > len(data):
        raise Malformed(f"expected a DER value of {length} octets, the data ends before it does")
    return Node(tag, data[start : start + length], data[position : start + length])


def oid(node: Node) -> str:
    """An object identifier in dotted form (X.690, 8.19)."""
    content = node.expect(OID, "an object identifier").content
    parts: list[int] = []
    value = 0
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise Malformed("expected a complete object identifier")
    for octet in content:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            parts.append(value)
            value = 0
    first = min(parts[0] // 40, 2)
    return ".".join(map(str, (first, parts[0] - first * 40, *parts[1:])))
