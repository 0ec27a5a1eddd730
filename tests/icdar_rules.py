"""ICDAR 2015's rules word for word, pair by pair, in exact fractions: slow, and nothing of ours."""

from __future__ import annotations

from fractions import Fraction

Point = tuple[Fraction, Fraction]
Polygon = list[Point]


def counted(gt: list[Polygon], care: list[bool], det: list[Polygon]) -> tuple[list, int, int]:
    """Pairs (number of the word, of the detection), words and detections that count."""
    valid_gt = [n for n, polygon in enumerate(gt) if is_simple(polygon)]
    valid_det = [d for d, polygon in enumerate(det) if is_simple(polygon)]
    ignored = set()
    for d in valid_det:
        for n in valid_gt:
            if not care[n] and shared(det[d], gt[n]) / area(det[d]) > Fraction(1, 2):
                ignored.add(d)
    pairs, used = [], set()
    for n in valid_gt:
        for d in valid_det:
            if not care[n] or d in ignored or d in used or n in {m for m, _ in pairs}:
                continue
            if iou(gt[n], det[d]) > Fraction(1, 2):
                pairs.append((n, d))
                used.add(d)
    return pairs, sum(care[n] for n in valid_gt), len(valid_det) - len(ignored)


def iou(one: Polygon, other: Polygon) -> Fraction:
    both = shared(one, other)
    return both / (area(one) + area(other) - both)


def shared(one: Polygon, other: Polygon) -> Fraction:
    """Area of the intersection of two simple quads: of their triangles, two by two."""
    pairs = [(a, b) for a in triangles(one) for b in triangles(other)]
    return sum((area(clip(a, b)) for a, b in pairs), Fraction(0))


def area(polygon: Polygon) -> Fraction:
    return abs(signed(polygon))


def signed(polygon: Polygon) -> Fraction:
    corners = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return sum((x * v - u * y for (x, y), (u, v) in corners), Fraction(0)) / 2


def triangles(quad: Polygon) -> list[Polygon]:
    """A simple quad cut along the diagonal that lies inside."""
    a, b, c, d = quad
    for first, second in (((a, b, c), (a, c, d)), ((b, c, d), (b, d, a))):
        if area(list(first)) + area(list(second)) == area(quad):
            return [list(first), list(second)]
    raise AssertionError("a simple quad has a diagonal inside")


def clip(polygon: Polygon, triangle: Polygon) -> Polygon:
    """The part of a convex polygon in a triangle (Sutherland and Hodgman)."""
    if signed(triangle) < 0:
        triangle = triangle[::-1]
    for k in range(3):
        a, b = triangle[k], triangle[(k + 1) % 3]
        kept: Polygon = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            side_p, side_q = turn(a, b, p), turn(a, b, q)
            if side_p >= 0:
                kept.append(p)
            if side_p * side_q < 0:
                t = side_p / (side_p - side_q)
                kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        polygon = kept
    return polygon


def turn(a: Point, b: Point, c: Point) -> Fraction:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def is_simple(quad: Polygon) -> bool:
    """Whether the outline has an area and touches itself nowhere; corners may be repeated."""
    corners = [p for i, p in enumerate(quad) if p != quad[i - 1]]
    if len(corners) < 3 or signed(corners) == 0:
        return False
    if len(corners) == 3:
        return True
    a, b, c, d = corners
    if meet(a, b, c, d) or meet(b, c, d, a):
        return False
    neighbours = [(corners[i - 1], corners[i], corners[(i + 1) % 4]) for i in range(4)]
    return not any(turn(*t) == 0 and back(*t) for t in neighbours)


def back(a: Point, b: Point, c: Point) -> bool:
    """Whether the outline returns at b on the line that it came along."""
    return (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]) < 0


def meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the segments a-b and c-d have a point in common."""
    if turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0:
        return True
    ends = [(a, b, c), (a, b, d), (c, d, a), (c, d, b)]
    return any(turn(p, q, r) == 0 and not outside(p, q, r) for p, q, r in ends)


def outside(p: Point, q: Point, r: Point) -> bool:
    """Whether r, on the line through p and q, lies beyond them."""
    return (r[0] - p[0]) * (r[0] - q[0]) + (r[1] - p[1]) * (r[1] - q[1]) > 0
