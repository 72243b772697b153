"""Strongly connected components (Tarjan, 1972, without recursion), and a short cycle in each."""

import collections


def components(n, edges):
    """Components of more than one node of the graph {node: {node: ...}} over range(n)."""
    number, low, on = [None] * n, [0] * n, [False] * n
    stack, found, count = [], [], 0
    for root in range(n):
        if number[root] is not None:
            continue
        work = [(root, iter(edges.get(root, ())))]
        number[root] = low[root] = count
        count += 1
        stack.append(root)
        on[root] = True
        while work:
            node, rest = work[-1]
            for to in rest:
                if number[to] is None:
                    number[to] = low[to] = count
                    count += 1
                    stack.append(to)
                    on[to] = True
                    work.append((to, iter(edges.get(to, ()))))
                    break
                if on[to]:
                    low[node] = min(low[node], number[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    group = []
                    while True:
                        member = stack.pop()
                        on[member] = False
                        group.append(member)
                        if member == node:
                            break
                    if len(group) > 1:
                        found.append(group)
    return found


def _shortest(start, inside, edges):
    """The shortest cycle through `start` within `inside`, as a list of nodes."""
    before, queue = {start: None}, collections.deque([start])
    while queue:
        node = queue.popleft()
        for to in edges.get(node, ()):
            if to == start:
                path = [node]
                while before[path[-1]] is not None:
                    path.append(before[path[-1]])
                return path[::-1]
            if to in inside and to not in before:
                before[to] = node
                queue.append(to)
    return None


def find(n, edges, tries=50):
    """One short cycle for each component."""
    out = []
    for group in components(n, edges):
        inside, best = set(group), None
        for start in group[:tries]:
            cycle = _shortest(start, inside, edges)
            if cycle and (best is None or len(cycle) < len(best)):
                best = cycle
        out.append(best)
    return out
