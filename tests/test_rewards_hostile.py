"""Hostile completions: each attack has the outcome that is asserted, and the pool is as good as new afterwards."""

import os
import resource
import time

import pytest
from rewards.attacks import ATTACKS, CHANGES_ITS_PAGE, FAILS, OK, TIMES_OUT, forgeries_of_globals
from rewards.render_available import needs_render

from rlhf.rewards.react.render.pool import Rendered, RenderPool

pytestmark = needs_render
SECONDS = 0.2
GOOD = "export default function Good() { return <ul>{[1, 2].map((n) => <li key={n}>{n}</li>)}</ul>; }"
GOOD_PAGE = Rendered("<ul><li>1</li><li>2</li></ul>")


@pytest.fixture(scope="module")
def pool():
    with RenderPool(workers=2, seconds=SECONDS) as pool:
        yield pool


@pytest.fixture(scope="module")
def outcomes(pool):
    """What came of every attack; all at once, so that both workers are busy with one while the other goes on."""
    forgeries = forgeries_of_globals()
    codes = [code for code, _ in [*ATTACKS.values(), *forgeries.values()]]
    return dict(zip([*ATTACKS, *forgeries], pool.render(codes), strict=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(outcomes, name):
    _, expected = ATTACKS[name]
    rendered = outcomes[name]
    if expected == TIMES_OUT:
        assert rendered == Rendered(None, "time limit exceeded")
    elif expected == FAILS:
        assert rendered.html is None
        assert 0 < len(rendered.error) <= 400
    else:
        assert (rendered.html, rendered.error) == (expected, "")


@pytest.mark.parametrize("name", forgeries_of_globals())
def test_no_global_forges_a_result(outcomes, name):
    _, renders = forgeries_of_globals()[name]
    rendered = outcomes[name]
    if renders and name.partition(",")[0] in CHANGES_ITS_PAGE:
        assert rendered.stand_ins == 0
    else:
        assert rendered.html is None or (renders and rendered.html == OK)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("text: 1 MB of <", "longer than 50000 characters"),
        ("memory: 300 kB of text", "renders 300007 characters, more than 200000"),
        ("memory: string at once", "InternalError: out of memory"),
        ("loop: of calls", "RangeError: Maximum call stack size exceeded"),
        ("forgery: thrown text", "+0:<h1>forged</h1>"),
        ("forgery: thrown in toString", "threw something that has no text"),
        ("host: XMLHttpRequest", "ReferenceError: XMLHttpRequest is not defined"),
    ],
)
def test_the_error_says_why(outcomes, name, error):
    assert outcomes[name].error == error


POLLUTION = [
    "Object.prototype.className = 'polluted';",
    "Object.prototype.dangerouslySetInnerHTML = { __html: 'polluted' };",
    "Array.prototype.map = () => 'polluted';",
    "Array.prototype[0] = 'polluted';",
    "String.prototype.replace = () => 'polluted';",
    "globalThis.GOOD = globalThis.React = 'polluted';",
    "import React from 'react'; React.createElement = React.Fragment = () => 'polluted';",
    "import * as runtime from 'react/jsx-runtime'; for (const name in runtime) runtime[name] = () => 'polluted';",
    "require('react').__SECRET_INTERNALS_DO_NOT_USE_OR_YOU_WILL_BE_FIRED.ReactCurrentDispatcher.current = null;",
    "require('./ui').Card = () => 'polluted'; require('x').__proto__.polluted = 1;",
    "delete Array.prototype[Symbol.iterator]; Object.freeze(Object.prototype); Symbol.for = Reflect.apply = null;",
    "Object.setPrototypeOf(Function.prototype, new Proxy({}, { get: () => 'polluted' }));",
]


@pytest.mark.parametrize("pollution", POLLUTION)
def test_nothing_passes_from_one_completion_to_the_next(pool, pollution):
    with RenderPool(workers=1, seconds=SECONDS) as single:  # the same process for both
        single.render([f"{pollution} export default () => <p>page</p>;"])
        assert single.render([GOOD]) == [GOOD_PAGE]


def test_the_pool_is_healthy_afterwards(outcomes, pool):
    pages = pool.render([f"{GOOD} // {i}" for i in range(40)])
    assert pages == [GOOD_PAGE] * 40
    assert len(pool.processes()) <= pool.workers


def test_nothing_is_left_behind():
    before = set(children())
    pool = RenderPool(workers=2, seconds=SECONDS)
    attacks = ["loop: inside sort", "memory: buffers", "loop: in the render", "memory: closures"]
    pool.render([ATTACKS[name][0] for name in attacks] + [GOOD])
    assert set(pool.processes()) == set(children()) - before
    pool.close()
    assert set(children()) == before
    assert not os.path.exists("/tmp/pwned")


def test_a_worker_gives_memory_back(pool):
    code = ATTACKS["memory: array"][0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(4):
        pool.render([f"{code} // {i}"])
        time.sleep(0.05)
        assert all(resident_megabytes(pid) < 60 for pid in pool.processes())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10


def children() -> list[int]:
    pids = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                state, parent = stat.read().rpartition(")")[2].split()[:2]
        except OSError:  # gone meanwhile
            continue
        if int(parent) == os.getpid() and state != "Z":
            pids.append(int(entry))
    return pids


def resident_megabytes(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20
